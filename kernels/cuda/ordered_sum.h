// A sum in double in the order of the elements, by one block: its threads fetch what the first one adds. Device side.
#pragma once

#include "kernels/cuda/row_group.h"

namespace sluice::cuda {

inline constexpr int kOrderedSumThreads = 256;
inline constexpr int kOrderedSumTile = 4 * kOrderedSumThreads;
inline constexpr int kOrderedSumBytes = kOrderedSumTile * sizeof(float);  // of shared memory

// The first thread of the block gets start + x[0] + x[1] + ...
__device__ inline double OrderedSum(double start, const float* x, int64_t count) {
  float* const tile = SharedMemory<float>();
  for (int64_t base = 0; base < count; base += kOrderedSumTile) {
    const int available = count - base < kOrderedSumTile ? static_cast<int>(count - base) : kOrderedSumTile;
    for (int i = threadIdx.x; i < available; i += kOrderedSumThreads) tile[i] = x[base + i];
    __syncthreads();
    if (threadIdx.x == 0) {
#pragma unroll 16
      for (int i = 0; i < available; ++i) start += tile[i];
    }
    __syncthreads();
  }
  return start;
}

}  // namespace sluice::cuda
