// The start of a kernel as the simulated GPU sees it: kernels/cuda/launch.h fills this in where the real one calls the
// driver.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <source_location>
#include <vector>

#include "driver_types.h"
#include "vector_types.h"

namespace gpu_sim {

// Bytes that a launch may read or write: rows of `bytes` bytes, `stride` bytes apart.
struct LaunchRegion {
  const void* data;
  int64_t bytes;
  int64_t rows;
  int64_t stride;
};

struct KernelLaunch {
  const char* name;
  void (*kernel)();                                       // void (*)(Args), untyped
  void (*call)(void (*kernel)(), const void* arguments);  // runs one CUDA thread of it
  std::vector<std::byte> arguments;                       // the Args
  dim3 grid, block;
  int shared_bytes;
  cudaStream_t stream;
  std::vector<LaunchRegion> reads, writes;
  std::source_location site;
  double flops = 0;  // for its cost in virtual time; 0: memory limits it
  // In place of kernel, call and arguments: what a library's call computes on the same buffers. Runs when the launch
  // does.
  std::function<cudaError_t()> library_call = nullptr;
};

// Puts the kernel into its stream.
cudaError_t Launch(KernelLaunch launch);

}  // namespace gpu_sim
