// The start of a kernel, with what it reads and writes. Every kernel takes one trivially copyable struct of pointers
// and numbers. The simulated GPU (tests/gpu_sim) holds each launch to its regions and orders launches by them.
#pragma once

#include <cstdint>
#include <type_traits>

#include "absl/types/span.h"
#include "cuda_runtime.h"
#include "kernels/tensor.h"

#ifndef __CUDACC__
#include <cstring>
#include <source_location>
#include <utility>
#include <vector>

#include "gpu_sim_launch.h"
#endif

namespace sluice::cuda {

// Rows of `bytes` bytes, `stride` bytes apart. Without data or bytes: nothing.
struct Region {
  const void* data = nullptr;
  int64_t bytes = 0;
  int64_t rows = 1;
  int64_t stride = 0;
};

inline Region Of(const TensorView& view) { return {view.data, view ? view.bytes() : 0}; }

struct LaunchConfig {
  const char* name;  // for reports and traces
  dim3 grid, block;
  int shared_bytes = 0;  // dynamic shared memory of a block
  cudaStream_t stream = nullptr;
  double flops = 0;  // for the simulated GPU's time; 0: memory limits it
};

// More dynamic shared memory than this must be asked for.
inline constexpr int kSharedBytesUnasked = 48 * 1024;

template <class Args>
cudaError_t AskForSharedMemory(void (*kernel)(Args), int bytes) {
  if (bytes <= kSharedBytesUnasked) return cudaSuccess;
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                              bytes);
}

#ifdef __CUDACC__

template <class Args>
cudaError_t Launch(void (*kernel)(Args), const LaunchConfig& config, absl::Span<const Region> /*reads*/,
                   absl::Span<const Region> /*writes*/, const Args& args) {
  static_assert(std::is_trivially_copyable_v<Args>);
  const cudaError_t error = AskForSharedMemory(kernel, config.shared_bytes);
  if (error != cudaSuccess) return error;
  void* arguments[] = {const_cast<Args*>(&args)};
  return cudaLaunchKernel(reinterpret_cast<const void*>(kernel), config.grid, config.block, arguments,
                          config.shared_bytes, config.stream);
}

#else

template <class Args>
__attribute__((no_sanitize("thread"))) void CallKernel(void (*kernel)(), const void* args) {
  reinterpret_cast<void (*)(Args)>(kernel)(*static_cast<const Args*>(args));
}

template <class Args>
cudaError_t Launch(void (*kernel)(Args), const LaunchConfig& config, absl::Span<const Region> reads,
                   absl::Span<const Region> writes, const Args& args,
                   std::source_location site = std::source_location::current()) {
  static_assert(std::is_trivially_copyable_v<Args>);
  const cudaError_t error = AskForSharedMemory(kernel, config.shared_bytes);
  if (error != cudaSuccess) return error;
  gpu_sim::KernelLaunch launch{
      .name = config.name,
      .kernel = reinterpret_cast<void (*)()>(kernel),
      .call = CallKernel<Args>,
      .arguments = std::vector<std::byte>(sizeof(Args)),
      .grid = config.grid,
      .block = config.block,
      .shared_bytes = config.shared_bytes,
      .stream = config.stream,
      .site = site,
      .flops = config.flops,
  };
  std::memcpy(launch.arguments.data(), &args, sizeof(Args));
  for (const Region& region : reads) launch.reads.push_back({region.data, region.bytes, region.rows, region.stride});
  for (const Region& region : writes) launch.writes.push_back({region.data, region.bytes, region.rows, region.stride});
  return gpu_sim::Launch(std::move(launch));
}

#endif

}  // namespace sluice::cuda
