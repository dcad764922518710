// The CPU as a Device: memory from the host's allocator, one thread team per stream, operations from oneDNN and
// Highway.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/world.h"
#include "kernels/device.h"

namespace sluice::cpu {

struct CpuDeviceOptions {
  int threads = 1;                 // of each stream's team
  std::vector<int> processors;     // where they are pinned, in this order; empty: not pinned
  int64_t memory_limit_bytes = 0;  // 0: none
  // Tests: fresh memory is filled with NaNs instead of zeroes, so that reading what nobody wrote shows.
  bool poison_fresh_memory = false;
};

// The world runs the stream's task; it must outlive the device. With threads == 1 everything runs in that task, so the
// device also works in a simulated world.
std::unique_ptr<Device> NewCpuDevice(World* world, const CpuDeviceOptions& options);

}  // namespace sluice::cpu
