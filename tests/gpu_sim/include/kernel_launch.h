// The toolkit in miniature: what a launch on the simulated GPU is. In place of the toolkit's <<<>>>, for launch.h and for
// libraries (cublasLt.h), whose calls are launches too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <source_location>
#include <vector>

#include "driver_types.h"
#include "vector_types.h"

namespace gpu_sim {

// Bytes of device memory: `rows` rows of `bytes` bytes, `stride` bytes from one to the next.
struct MemoryRegion {
  const void* data = nullptr;
  int64_t bytes = 0;
  int64_t rows = 1;
  int64_t stride = 0;
};

struct KernelLaunch {
  const char* name = "";  // lives for ever
  dim3 grid, block;
  int shared_bytes = 0;
  cudaStream_t stream = nullptr;
  std::vector<MemoryRegion> reads, writes;  // all that the launch reads and writes
  double flops = 0;                         // for its cost in virtual time; 0: it is limited by memory

  // A kernel: its address, how one thread runs it, and its one argument, trivially copyable; the launch keeps a copy.
  const void* kernel = nullptr;
  void (*run_thread)(const void* kernel, const void* arguments) = nullptr;
  const void* arguments = nullptr;
  size_t argument_bytes = 0;
  // Or a library's call: what it computes. Runs when the launch does.
  std::function<cudaError_t()> library_call;
};

// Issues it on its stream. Errors: as of cudaLaunchKernel.
cudaError_t Launch(const KernelLaunch& launch, std::source_location site = std::source_location::current());

}  // namespace gpu_sim
