// A hash of a tensor's bits on a GPU: kernels/operations.h. The value is the CPU's.
// A call issues work on the stream and returns; the error is that of the launch. Allocates nothing.
#pragma once

#include "cuda_runtime.h"
#include "kernels/cuda/workspace.h"
#include "kernels/operations.h"

namespace sluice::cuda {

cudaError_t Hash(cudaStream_t stream, const TensorView& source, const TensorView& hash, const Workspace& workspace);
int64_t HashWorkspaceBytes(int64_t source_bytes);

// Blocks of the source (kernels/hash_chains.h) whose hashes a thread block adds up.
inline constexpr int kHashBlocksOfThreads = 16;

// What the kernels are given.
struct HashBlocksParams {
  bool aligned;  // the source allows 8-byte accesses
  int64_t bytes;
  const std::byte* source;
  uint64_t* partials;  // of each thread block
};
struct SumHashesParams {
  int64_t source_bytes;
  int64_t count;
  const uint64_t* partials;
  uint32_t* hash;  // [2]
};

}  // namespace sluice::cuda
