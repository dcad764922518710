// Launching what works on each element for itself: a thread has one pack, of a flat tensor, or of the rows of matrices
// whose columns mean different things.
#pragma once

#include "kernels/cuda/row_group.h"

namespace sluice::cuda {

inline constexpr int kFlatThreads = 256;
inline constexpr int kChunkThreads = 128;

// The first element of this thread's pack.
template <class T>
__device__ __forceinline__ int64_t FlatElement() {
  return (int64_t{blockIdx.x} * kFlatThreads + threadIdx.x) * kPackOf<T>;
}
inline LaunchConfig FlatLaunch(const char* name, cudaStream_t stream, DType type, int64_t elements) {
  return {name, dim3(DivideUp(elements * SizeOf(type), kFlatThreads * 16)), dim3(kFlatThreads), 0, stream};
}

// A block has a chunk of one row.
struct RowPack {
  int64_t row;
  int column;
};
template <int kWidth>
__device__ __forceinline__ RowPack PackOfRow(int columns) {
  constexpr int kChunk = kChunkThreads * kWidth;
  const int chunks = (columns + kChunk - 1) / kChunk;
  return {static_cast<int>(blockIdx.x) / chunks,
          (static_cast<int>(blockIdx.x) % chunks * kChunkThreads + static_cast<int>(threadIdx.x)) * kWidth};
}
inline LaunchConfig ChunkLaunch(const char* name, cudaStream_t stream, DType type, int64_t rows, int64_t columns) {
  const int64_t chunk = kChunkThreads * RowWidth(type, columns);
  return {name, dim3(rows * DivideUp(columns, chunk)), dim3(kChunkThreads), 0, stream};
}

}  // namespace sluice::cuda
