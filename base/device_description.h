// What a device and the lines around it can do, in numbers: what plans, simulated schedules and the simulated GPU's
// virtual time reckon with. A plain value.
#pragma once

#include <cstdint>
#include <string>

namespace sluice {

// One direction of a line of one device.
struct LinkDescription {
  double bytes_per_second = 0;  // 0: one memory; messages are handed over and not copied
  int64_t latency_ns = 0;
  friend bool operator==(const LinkDescription&, const LinkDescription&) = default;
};

// What one rank computes on. The rates are those that programs reach, not the data sheet's.
struct DeviceDescription {
  std::string name = "one CPU core";
  double flops_f32 = 5e10;  // per second, matrix products
  double flops_bf16 = 5e10;
  double bytes_per_second = 8e9;      // of memory, streaming
  int64_t layer_overhead_ns = 5'000;  // of issuing one layer's pass
  int64_t launch_ns = 0;              // of starting one operation after another
  double peak_flops_f32 = 0;          // the data sheet's, for shares of it; 0: unknown
  double peak_flops_bf16 = 0;
  int64_t memory_bytes = 0;                       // that programs see; 0: no limit is known
  int64_t reserved_bytes = 0;                     // of them, what driver and libraries take
  int devices_per_host = 0;                       // 0: however many there are
  LinkDescription peer = {.latency_ns = 20'000};  // to the other devices of its host
  LinkDescription host;                           // to its host's memory
  LinkDescription network;                        // to devices of other hosts
  friend bool operator==(const DeviceDescription&, const DeviceDescription&) = default;
};

}  // namespace sluice
