// What the gradient of the queries leaves for that of the keys: [B, H, 3, padded T] words, padded to whole blocks of
// queries, so that a tile of them begins at a multiple of 16 bytes. Device side of attention_tile_*_gradient.cu.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention_tiles.h"

namespace sluice::cuda {

__host__ __device__ inline int PaddedQueries(int sequence) {
  return (sequence + kTileQueries - 1) / kTileQueries * kTileQueries;
}

// A query behind the sequence's end has the base infinity: all its probabilities are 0.
enum class QueryPlane {
  kBase = 0,      // f32: log2(e) * lse
  kDelta = 1,     // f32: dy . y, the mean of the gradients of the probabilities
  kFirstKey = 2,  // i32: only where the call has first keys
  kEnd = 3,
};
inline constexpr int kQueryPlanes = 3;

// Words before those of query 0 of a head.
__device__ __forceinline__ int64_t StatisticsAt(const AttentionLayout& at, int64_t row, int head, QueryPlane plane) {
  return ((row * at.heads + head) * kQueryPlanes + static_cast<int>(plane)) * PaddedQueries(at.sequence);
}

inline Region StatisticsRegion(const AttentionParams& p) {
  const int64_t plane = PaddedQueries(p.at.sequence) * static_cast<int64_t>(sizeof(float));
  const int used = p.first_key == nullptr ? kQueryPlanes - 1 : kQueryPlanes;
  return {p.statistics, used * plane, int64_t{p.rows} * p.at.heads, kQueryPlanes * plane};
}

}  // namespace sluice::cuda
