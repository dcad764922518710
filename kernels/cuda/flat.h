// Launching what works on each element for itself: a thread has one pack, of a flat tensor, or of the rows of matrices
// whose columns mean different things.
#pragma once

#include "kernels/cuda/row_group.h"

namespace sluice::cuda {

inline constexpr int kFlatThreads = 256;
inline constexpr int kChunkThreads = 128;

// Calls body(i, access) for this thread's pack of a flat tensor, which begins with element i.
template <class T, class Body>
__device__ __forceinline__ void ForFlatPack(int64_t elements, bool aligned, Body body) {
  const int64_t i = (int64_t{blockIdx.x} * kFlatThreads + threadIdx.x) * kPackOf<T>;
  const int64_t available = elements - i;
  if (aligned && available >= kPackOf<T>) return body(i, Wide());
  if (available > 0) body(i, Narrow{available < kPackOf<T> ? static_cast<int>(available) : kPackOf<T>});
}
inline LaunchConfig FlatLaunch(const char* name, cudaStream_t stream, DType type, int64_t elements) {
  return {name, dim3(DivideUp(elements * SizeOf(type), kFlatThreads * 16)), dim3(kFlatThreads), 0, stream};
}

// Calls body(row, column, access) for this thread's pack of a row; a block has a chunk of one.
template <int kWidth, class Body>
__device__ __forceinline__ void ForRowPack(int columns, bool aligned, Body body) {
  constexpr int kChunk = kChunkThreads * kWidth;
  const int chunks = (columns + kChunk - 1) / kChunk, block = static_cast<int>(blockIdx.x);
  const int64_t row = block / chunks;
  const int column = (block % chunks * kChunkThreads + static_cast<int>(threadIdx.x)) * kWidth;
  if (column < columns) WithAccess<kWidth>(aligned, [&](auto access) { body(row, column, access); });
}
inline LaunchConfig ChunkLaunch(const char* name, cudaStream_t stream, DType type, int64_t rows, int64_t columns) {
  const int64_t chunk = kChunkThreads * RowWidth(type, columns);
  return {name, dim3(rows * DivideUp(columns, chunk)), dim3(kChunkThreads), 0, stream};
}

}  // namespace sluice::cuda
