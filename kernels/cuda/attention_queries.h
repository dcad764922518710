// Who sees what: a warp's queries of a head and the keys they attend to. Device side of attention_tile*.cu.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/attention_tiles.h"

namespace sluice::cuda {

// Over the four lanes that share a row of results.
__device__ __forceinline__ float QuadMaximum(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}
__device__ __forceinline__ float QuadSum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}

// Over the lanes of a warp.
__device__ __forceinline__ int WarpMinimum(int x) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) x = std::min(x, __shfl_xor_sync(kAllLanes, x, distance));
  return x;
}

// The first key that any of the queries [begin, end) sees; first_key is of the row, or null.
__device__ __forceinline__ int LowestFirstKey(const int32_t* first_key, int begin, int end) {
  if (first_key == nullptr) return 0;
  int lowest = begin;
  for (int query = begin + Lane(); query < end; query += kWarp) lowest = std::min(lowest, first_key[query]);
  return WarpMinimum(lowest);
}

// The kTiles * 16 queries from `begin` on, as rows of results: a lane has rows At(m, 0) and At(m, 1). Queries behind
// the sequence's end are there, and nobody asks for their results. Its state is small, as registers are scarce.
template <int kTiles>
struct WarpQueries {
  const int32_t* first_key;  // of the row, or null
  int begin;
  int end;  // of the sequence

  __device__ __forceinline__ int At(int m, int half) const { return begin + m * 16 + half * 8 + Lane() / 4; }
  __device__ __forceinline__ int FirstKey(int query) const {
    return first_key == nullptr || query >= end ? 0 : first_key[query];
  }
  // Whether none of them sees any key from `key` on.
  __device__ __forceinline__ bool Precede(int key) const { return key >= begin + kTiles * 16; }
  // Whether all see all keys before `key_end` surely.
  __device__ __forceinline__ bool SeeAllBefore(int key_end) const {
    return key_end <= begin + 1 && first_key == nullptr;
  }
};

// Puts `hidden` where a query doesn't see a key; column 0 is of `key`.
template <int kTiles, int kN>
__device__ __forceinline__ void Mask(const WarpQueries<kTiles>& queries, int key, float hidden,
                                     Results<kTiles, kN>& scores) {
  const int column = key + Lane() % 4 * 2;  // of this lane's first result
  const int distance = queries.At(0, 0) - column;
#pragma unroll
  for (int i = 0; i < kTiles * 2; ++i) {
    const int m = i / 2, half = i % 2, first = queries.FirstKey(queries.At(m, half)) - column;
#pragma unroll
    for (int j = 0; j < kN * 2; ++j) {
      const int further = j / 2 * 8 + j % 2;
      if (further - i * 8 > distance || further < first) scores.at[m][j / 2][half * 2 + j % 2] = hidden;
    }
  }
}

}  // namespace sluice::cuda
