// Attention of new tokens over a cache of keys and values (kernels/operations.h).
//
// The cache is f32 for bf16 tensors too, each key head of a sequence in the panels that the products read: a query's
// result is that of AttentionForward without tiles, bit by bit, whatever else is in the call. Keys and values are read
// once for all query heads that share them. One thread does a few tokens of one key head.
// Errors: a failure of memory throws.
#pragma once

#include <cstdint>

#include "kernels/cpu/team.h"
#include "kernels/operations.h"

namespace sluice::cpu {

int64_t KeyValueCacheBytes(const CacheShape& shape);
void CachedAttention(Team& team, const CachedAttentionArgs& args);

}  // namespace sluice::cpu
