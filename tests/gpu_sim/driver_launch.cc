#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/gpu_sim/barrier_power.h"
#include "tests/gpu_sim/bodies.h"
#include "tests/gpu_sim/driver.h"
#include "tests/gpu_sim/kernel_run.h"
#include "tests/gpu_sim/memory.h"

namespace gpu_sim {
namespace {

constexpr int kSharedBytesUnasked = 48 * 1024;

// As the real runtime judges it.
cudaError_t CheckShape(const DeviceDescription& device, const KernelLaunch& launch, int shared_bytes_max) {
  const dim3 &grid = launch.grid, &block = launch.block;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > 1024 || block.z > 64) return cudaErrorInvalidConfiguration;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaErrorInvalidConfiguration;
  if (grid.x > 0x7FFFFFFF || grid.y > 65535 || grid.z > 65535) return cudaErrorInvalidConfiguration;
  if (launch.shared_bytes < 0 || launch.shared_bytes > shared_bytes_max) return cudaErrorInvalidValue;
  return cudaSuccess;
}

cudaError_t RunBody(Body body, std::vector<std::byte> arguments) {
  TranslateToStorage(arguments.data(), arguments.size());
  body(arguments.data());
  return cudaSuccess;
}

}  // namespace

cudaError_t Driver::SetSharedBytes(const void* kernel, int bytes) {
  if (bytes < 0 || bytes > options_.device.shared_bytes_per_block_max) return cudaErrorInvalidValue;
  std::lock_guard lock(mutex_);
  devices_[CurrentDevice()].shared_bytes_max[kernel] = bytes;
  return cudaSuccess;
}

std::function<cudaError_t()> Driver::EffectOf(const KernelLaunch& launch) {
  if (launch.library_call != nullptr) return launch.library_call;
  const Body body = options_.fidelity == Fidelity::kBodies ? FindBody(launch.name) : nullptr;
  if (body != nullptr) return [body, arguments = launch.arguments] { return RunBody(body, arguments); };
  return [this, launch, seed = options_.seed + static_cast<uint64_t>(counters_.launches)] {
    return RunThreads(launch, seed);
  };
}

cudaError_t Driver::RunThreads(const KernelLaunch& launch, uint64_t seed) {
  const RunOptions run{.seed = seed};
  const RunResult result =
      options_.barrier_power != nullptr ? options_.barrier_power->Run(launch, run) : RunEveryThread(launch, run);
  for (const Report& report : result.reports) reports_.Add(report.kind, report.text);
  return result.finished ? cudaSuccess : cudaErrorIllegalAddress;
}

cudaError_t Driver::LaunchKernel(const Caller& caller, KernelLaunch launch) {
  std::lock_guard lock(mutex_);
  Stream* on = Find(caller, launch.stream);
  if (on == nullptr || on->device != CurrentDevice()) return cudaErrorInvalidResourceHandle;
  Device& device = devices_[on->device];
  const auto asked = device.shared_bytes_max.find(reinterpret_cast<const void*>(launch.kernel));
  const int shared_bytes_max = asked != device.shared_bytes_max.end() ? asked->second : kSharedBytesUnasked;
  const cudaError_t error = CheckShape(options_.device, launch, shared_bytes_max);
  if (error != cudaSuccess) return error;
  ++counters_.launches;
  Command command = {
      .engine = device.compute,
      .latency = options_.device.launch_latency,
      .duration = options_.kernel_time != nullptr ? options_.kernel_time(launch) : KernelTime(options_.device, launch)};
  if (CheckRegions(caller, on->device, launch.reads) && CheckRegions(caller, on->device, launch.writes)) {
    command.effect = EffectOf(launch);
    Issue(caller, on, launch.reads, launch.writes, std::move(command));
  } else {
    command.effect = [] { return cudaErrorIllegalAddress; };
    Issue(caller, on, {}, {}, std::move(command));
  }
  return cudaSuccess;
}

}  // namespace gpu_sim
