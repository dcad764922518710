#include "tests/gpu_sim/device_description.h"

#include <algorithm>
#include <cmath>

namespace gpu_sim {
namespace {

using sluice::Nanoseconds;

Nanoseconds TimeOf(double amount, double per_second) { return std::llround(amount / per_second * 1e9); }

int64_t BytesOf(const std::vector<LaunchRegion>& regions) {
  int64_t bytes = 0;
  for (const LaunchRegion& region : regions) bytes += region.bytes * region.rows;
  return bytes;
}

}  // namespace

DeviceDescription H100() {
  return {.name = "Simulated H100 80GB",
          .compute_capability_major = 9,
          .compute_capability_minor = 0,
          .multiprocessors = 132,
          .memory_bytes = int64_t{80} << 30,
          .shared_bytes_per_block_max = 227 * 1024,
          .flops = 989e12,
          .memory_bytes_per_second = 3.35e12,
          .launch_latency = 4000,
          .kernel_time_min = 2000,
          .host = {.bytes_per_second = 55e9, .latency = 5000},
          .peer = {.bytes_per_second = 450e9, .latency = 5000}};
}

DeviceDescription WithNumbersOf(const sluice::DeviceDescription& numbers) {
  const auto link = [](const sluice::LinkDescription& line) {
    return Link{.bytes_per_second = line.bytes_per_second, .latency = line.latency_ns};
  };
  DeviceDescription device = H100();
  device.name = "Simulated " + numbers.name;
  device.memory_bytes = numbers.memory_bytes;
  device.flops = numbers.flops_bf16;
  device.memory_bytes_per_second = numbers.bytes_per_second;
  device.kernel_time_min = numbers.launch_ns;
  device.host = link(numbers.host);
  device.peer = link(numbers.peer);
  return device;
}

Nanoseconds KernelTime(const DeviceDescription& device, const KernelLaunch& launch) {
  const double bytes = static_cast<double>(BytesOf(launch.reads) + BytesOf(launch.writes));
  return std::max(
      {device.kernel_time_min, TimeOf(launch.flops, device.flops), TimeOf(bytes, device.memory_bytes_per_second)});
}

Nanoseconds CopyTime(const Link& link, int64_t bytes) {
  return link.latency + TimeOf(static_cast<double>(bytes), link.bytes_per_second);
}

Nanoseconds LocalCopyTime(const DeviceDescription& device, int64_t bytes) {
  return device.kernel_time_min + TimeOf(2.0 * static_cast<double>(bytes), device.memory_bytes_per_second);
}

}  // namespace gpu_sim
