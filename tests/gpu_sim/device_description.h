// What a simulated device is like: what it answers when it is asked, and how long things take on it.
#pragma once

#include <cstdint>
#include <string>

#include "base/device_description.h"
#include "base/time.h"
#include "tests/gpu_sim/include/gpu_sim_launch.h"

namespace gpu_sim {

struct Link {
  double bytes_per_second = 0;
  sluice::Nanoseconds latency = 0;
};

struct DeviceDescription {
  std::string name;
  int compute_capability_major = 0, compute_capability_minor = 0;
  int multiprocessors = 0;
  int64_t memory_bytes = 0;
  int64_t shared_bytes_per_block_max = 0;  // that a kernel may ask for
  double flops = 0;                        // per second, dense bf16
  double memory_bytes_per_second = 0;
  sluice::Nanoseconds launch_latency = 0;  // from the call to the start, on an idle device
  sluice::Nanoseconds kernel_time_min = 0;
  Link host, peer;  // to pinned memory, each way; to each other device, each way
};

// H100 SXM5 80GB: NVIDIA's data sheet; latencies as commonly measured.
DeviceDescription H100();

// H100(), with the rates, memory and lines that plans reckon with: both then predict the same.
DeviceDescription WithNumbersOf(const sluice::DeviceDescription& numbers);

// Of one launch: the slower of its arithmetic and its bytes.
sluice::Nanoseconds KernelTime(const DeviceDescription& device, const KernelLaunch& launch);
sluice::Nanoseconds CopyTime(const Link& link, int64_t bytes);
// Within the device: read and written.
sluice::Nanoseconds LocalCopyTime(const DeviceDescription& device, int64_t bytes);

}  // namespace gpu_sim
