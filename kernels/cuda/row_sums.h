// The first pass of column_sums.h, for kernels that sum something over the rows of a matrix. Device side, and its
// launch.
#pragma once

#include "kernels/cuda/column_sums.h"
#include "kernels/cuda/row_group.h"

namespace sluice::cuda {

inline constexpr int kSumThreads = 256;
inline constexpr int kSumWarps = kSumThreads / kWarp;

// A block has kGroupRows rows and a tile of columns: a pack for each lane, every kSumWarps-th row for each warp.
// add(row, column, sums) adds what the row's pack at this column gives to the kCount sums.
// partials[groups, kCount, columns].
template <int kCount, int kWidth, class Add>
__device__ __forceinline__ void SumGroupOfRows(int64_t rows, int columns, float* partials, Add add) {
  constexpr int kTile = kWarp * kWidth;
  const int tiles = (columns + kTile - 1) / kTile, tile = static_cast<int>(blockIdx.x) % tiles * kTile;
  const int64_t group = static_cast<int>(blockIdx.x) / tiles;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, column = tile + lane * kWidth;
  const int64_t end = (group + 1) * kGroupRows < rows ? (group + 1) * kGroupRows : rows;

  Pack<kWidth> sums[kCount] = {};
  if (column < columns) {
#pragma unroll 4
    for (int64_t row = group * kGroupRows + warp; row < end; row += kSumWarps) add(row, column, sums);
  }
  float* const shared = SharedMemory<float>();  // [kCount, warps, kTile]
#pragma unroll
  for (int k = 0; k < kCount; ++k) {
    float* const own = shared + (k * kSumWarps + warp) * kTile + lane * kWidth;
    Store(sums[k], own, OwnAccess<kWidth>());
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kCount * kTile; i += kSumThreads) {
    const int k = i / kTile, c = i % kTile;
    if (tile + c >= columns) continue;
    float sum = 0;
    for (int w = 0; w < kSumWarps; ++w) sum += shared[(k * kSumWarps + w) * kTile + c];
    partials[(group * kCount + k) * columns + tile + c] = sum;
  }
}

inline LaunchConfig SumLaunch(const char* name, cudaStream_t stream, DType type, int64_t rows, int64_t columns,
                              int count) {
  const int width = RowWidth(type, columns);
  const int64_t tiles = DivideUp(columns, kWarp * width);
  const int shared = count * kSumThreads * width * static_cast<int>(sizeof(float));
  return {name, dim3(RowGroups(rows) * tiles), dim3(kSumThreads), shared, stream};
}

}  // namespace sluice::cuda
