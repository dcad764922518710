// Tiles of bf16 rows in shared memory, and products of them on tensor cores. Device side of attention_tile*.cu.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/row_group.h"
#include "kernels/cuda/simt.h"
#include "kernels/dtype.h"

namespace sluice::cuda {

inline constexpr float kLog2E = 1.44269504088896340736f;
inline constexpr float kInfinity = __builtin_huge_valf();
// Queries of a block of the kernels that own queries; the statistics of queries are padded to a multiple of them.
inline constexpr int kTileQueries = 128;

__device__ __forceinline__ int Lane() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ __forceinline__ int Warp() { return static_cast<int>(threadIdx.x) / kWarp; }

// Rows of kColumns elements in shared memory, from a multiple of 128 bytes on. Chunk c (16 bytes) of row r lies in the
// place of chunk c ^ (r % 8): the eight rows that a matrix instruction reads at once, and chunks written one after
// another, fall on different banks.
template <int kColumns>
struct Tile {
  static constexpr int kChunks = kColumns / 8;
  static constexpr int kRowBytes = kColumns * static_cast<int>(sizeof(BFloat16));
  int begin;  // bytes
  __device__ __forceinline__ unsigned char* Chunk(int row, int chunk) const {
    return SharedMemory<unsigned char>() + begin + row * kRowBytes + ((chunk ^ (row % 8)) * 16);
  }
};

// A thread's share of copying rows of kColumns from global memory into tiles, by all threads of a block: one chunk of
// every kRowsAtOnce-th row.
template <int kColumns, int kThreads>
struct RowSource {
  static constexpr int kChunks = Tile<kColumns>::kChunks, kRowsAtOnce = kThreads / kChunks;
  static_assert(kRowsAtOnce % 8 == 0);
  const BFloat16* chunk;  // of the first row
  int stride;             // elements

  __device__ __forceinline__ RowSource(const BFloat16* rows, int64_t stride)
      : chunk(rows + Row() * stride + threadIdx.x % kChunks * 8), stride(static_cast<int>(stride)) {}
  __device__ __forceinline__ static int Row() { return static_cast<int>(threadIdx.x) / kChunks; }
  __device__ __forceinline__ void Skip(int rows) { chunk += int64_t{rows} * stride; }
  // Starts copying kRows rows from `offset` elements on; those from the count-th on don't exist and become 0.
  template <int kRows>
  __device__ __forceinline__ void CopyAsync(int64_t offset, int count, Tile<kColumns> to) const {
    static_assert(kRows % kRowsAtOnce == 0);
    unsigned char* const target = to.Chunk(Row(), static_cast<int>(threadIdx.x) % kChunks);
    const BFloat16* from = chunk + offset;
#pragma unroll
    for (int i = 0; i < kRows; i += kRowsAtOnce) {
      CopyAsync16(target + i * Tile<kColumns>::kRowBytes, from, Row() + i < count);
      from += kRowsAtOnce * stride;
    }
  }
};

// Where this lane's rows are for LoadMatrix, in a tile from one of its rows (a multiple of 8) on. kStacked: matrices 0
// and 1 are one above the other, as of a left-hand side or of a right-hand side read transposed. kBeside: they are
// neighbours along the row, as of a right-hand side whose rows are the result's columns.
enum class Matrices { kStacked, kBeside };
template <int kColumns, Matrices kMatrices>
struct Fragments {
  int begin;  // bytes: of this lane's row, and which chunk stands for the first
  __device__ __forceinline__ explicit Fragments(Tile<kColumns> tile, int row = 0) {
    const int lane = Lane(), second = lane / 8 % 2, last = lane / 16;
    const int below = kMatrices == Matrices::kStacked ? second : last;
    const int beside = kMatrices == Matrices::kStacked ? last : second;
    begin = Opaque(tile.begin + (row + lane % 8 + below * 8) * Tile<kColumns>::kRowBytes + ((lane % 8) ^ beside) * 16);
  }
  // 16 x 16 elements, from a row (a multiple of 8) and a chunk (even) on. One register serves all: its lower bits are
  // flipped, the rest is the instruction's offset. Opaque, lest the compiler keep every flipped address through a loop.
  template <MatrixOrder kOrder = MatrixOrder::kPlain>
  __device__ __forceinline__ void Load(int row, int chunk, uint32_t (&fragment)[4]) const {
    const unsigned char* flipped = SharedMemory<unsigned char>() + (begin ^ (chunk % 8 * 16));
    LoadMatrix<kOrder>(flipped + row * Tile<kColumns>::kRowBytes + chunk / 8 * 128, fragment);
  }
};
template <int kColumns>
using Stacked = Fragments<kColumns, Matrices::kStacked>;
template <int kColumns>
using Beside = Fragments<kColumns, Matrices::kBeside>;

// Results of 16 x 8 each: kM of them below each other, kN beside each other.
template <int kM, int kN>
struct Results {
  float at[kM][kN][4];
  template <class Function>
  __device__ __forceinline__ void ForEach(Function function) {
#pragma unroll
    for (int m = 0; m < kM; ++m) {
#pragma unroll
      for (int n = 0; n < kN; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) function(at[m][n][i]);
      }
    }
  }
  __device__ __forceinline__ void Clear() {
    ForEach([](float& x) { x = 0.0f; });
  }
  __device__ __forceinline__ void Multiply(float factor) {
    ForEach([factor](float& x) { x *= factor; });
  }
};
// Results as the left-hand side of a product, rounded to bf16: 16 x 16 each.
template <int kM, int kK>
struct LeftHandSide {
  uint32_t at[kM][kK][4];
};

template <int kM, int kN>
__device__ __forceinline__ LeftHandSide<kM, kN / 2> Rounded(const Results<kM, kN>& results) {
  LeftHandSide<kM, kN / 2> rounded;
#pragma unroll
  for (int m = 0; m < kM; ++m) {
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      const float* r = results.at[m][n];
      rounded.at[m][n / 2][n % 2 * 2] = PackBf16x2(r[0], r[1]);
      rounded.at[m][n / 2][n % 2 * 2 + 1] = PackBf16x2(r[2], r[3]);
    }
  }
  return rounded;
}

// Two columns of results, from n on.
template <int kM, int kN>
__device__ __forceinline__ void MultiplyPair(const uint32_t (&left)[kM][4], const uint32_t (&right)[4], int n,
                                             Results<kM, kN>& results) {
  const uint32_t low[2] = {right[0], right[1]}, high[2] = {right[2], right[3]};
#pragma unroll
  for (int m = 0; m < kM; ++m) {
    MmaBf16(results.at[m][n], left[m], low);
    MmaBf16(results.at[m][n + 1], left[m], high);
  }
}

// The dot products of kM * 16 rows on the left with kN * 8 rows on the right.
template <int kM, int kN, int kColumns>
__device__ __forceinline__ Results<kM, kN> DotProducts(const Stacked<kColumns>& left, const Beside<kColumns>& right) {
  Results<kM, kN> results;
  results.Clear();
#pragma unroll
  for (int k = 0; k < kColumns / 16; ++k) {
    uint32_t a[kM][4];
#pragma unroll
    for (int m = 0; m < kM; ++m) left.Load(m * 16, 2 * k, a[m]);
#pragma unroll
    for (int n = 0; n < kN; n += 2) {
      uint32_t b[4];
      right.Load(n * 8, 2 * k, b);
      MultiplyPair(a, b, n, results);
    }
  }
  return results;
}

// sums += left . right, kK * 16 rows.
template <int kM, int kK, int kColumns>
__device__ __forceinline__ void AddProduct(const LeftHandSide<kM, kK>& left, const Stacked<kColumns>& right,
                                           Results<kM, kColumns / 8>& sums) {
#pragma unroll
  for (int k = 0; k < kK; ++k) {
    uint32_t a[kM][4];
#pragma unroll
    for (int m = 0; m < kM; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) a[m][i] = left.at[m][k][i];
    }
#pragma unroll
    for (int n = 0; n < kColumns / 8; n += 2) {
      uint32_t b[4];
      right.template Load<MatrixOrder::kTransposed>(k * 16, n, b);
      MultiplyPair(a, b, n, sums);
    }
  }
}

// Rounds a warp's results and writes them to `count` rows (of at most kM * 16) of global memory, 16 bytes at a time, by
// way of rows of shared memory that are the warp's own, and whose last reading a __syncwarp() has ended.
template <int kM, int kN, int kColumns>
__device__ __forceinline__ void StoreRows(const Results<kM, kN>& results, Tile<kColumns> staging, int staging_row,
                                          BFloat16* to, int64_t stride, int count) {
  const int lane = Lane();
#pragma unroll
  for (int i = 0; i < kM * 2; ++i) {
#pragma unroll
    for (int n = 0; n < kColumns / 8; ++n) {
      const float* r = results.at[i / 2][n] + i % 2 * 2;
      auto* pair = reinterpret_cast<uint32_t*>(staging.Chunk(staging_row + i * 8 + lane / 4, n)) + lane % 4;
      *pair = PackBf16x2(r[0], r[1]);
    }
  }
  __syncwarp();
  constexpr int kChunks = Tile<kColumns>::kChunks, kRowsAtOnce = kWarp / kChunks;
#pragma unroll
  for (int i = 0; i < kM * 16 / kRowsAtOnce; ++i) {
    const int row = i * kRowsAtOnce + lane / kChunks, chunk = lane % kChunks;
    if (row < count) Store128(to + row * stride + chunk * 8, Load128(staging.Chunk(staging_row + row, chunk)));
  }
}

}  // namespace sluice::cuda
