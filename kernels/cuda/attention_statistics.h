// What the gradient of the queries leaves for that of the keys: [B, H, 3, padded T] words, padded to whole blocks of
// queries, so that a tile of them begins at a multiple of 16 bytes. Device side of attention_tile_*_gradient.cu.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention_tiles.h"

namespace sluice::cuda {

__host__ __device__ inline int PaddedQueries(int sequence) {
  return (sequence + kTileQueries - 1) / kTileQueries * kTileQueries;
}

// Of one head's queries. A query behind the sequence's end has the base infinity: all its probabilities are 0.
struct QueryStatistics {
  static constexpr int kPlanes = 3;
  float* base;         // log2(e) * lse
  float* delta;        // dy . y: the mean of the probabilities' gradients
  int32_t* first_key;  // only where the call has first keys

  __device__ __forceinline__ QueryStatistics(const AttentionParams& p, int64_t row, int head) {
    const int padded = PaddedQueries(p.at.sequence);
    base = p.statistics + (row * p.at.heads + head) * kPlanes * padded;
    delta = base + padded;
    first_key = reinterpret_cast<int32_t*>(delta + padded);
  }
};

inline Region StatisticsRegion(const AttentionParams& p) {
  const int64_t plane = PaddedQueries(p.at.sequence) * static_cast<int64_t>(sizeof(float));
  const int used = p.first_key == nullptr ? QueryStatistics::kPlanes - 1 : QueryStatistics::kPlanes;
  return {p.statistics, used * plane, int64_t{p.rows} * p.at.heads, QueryStatistics::kPlanes * plane};
}

}  // namespace sluice::cuda
