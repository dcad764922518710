// The parts of attention on matrix registers that are no product: rows of scores become tiles of bf16. Single-threaded.
// REQUIRES: tiles::Available().
#pragma once

#include <cstdint>

#include "kernels/cpu/matrix_rows.h"
#include "kernels/dtype.h"

namespace sluice::cpu::tiles {

// Fetches rows that are used soon: each lies in a page of its own, where the processor's own prefetching ends.
void Fetch(Extent extent, Block<const BFloat16> rows);

// A query's row of scores over `steps` steps of keys; it attends to keys [first, end).
struct QueryRow {
  const float* scores = nullptr;
  int64_t steps = 0;
  int64_t first = 0;
  int64_t end = 0;
};
struct RowSum {
  float max = 0;  // of the scaled scores
  float sum = 0;  // of the exponentials of their distances to it
};
// e^(scale * score - max), 0 for other keys: 32 of them to each left-hand tile pair, `to` being this row in the first.
RowSum Exponentiate(const QueryRow& row, float scale, BFloat16* to);

// to = factor * from, rounded.
void ScaleRow(int64_t n, float factor, const float* from, BFloat16* to);

// Gradients of a block of up to kQueries queries (columns) for keys [first, first + keys) (rows; both multiples of 32).
struct ScoreBlock {
  static constexpr int64_t kQueries = 64;
  int64_t keys = 0;
  int64_t first = 0;
  int64_t query = 0;  // position of the first query
  int64_t queries = 0;
  const int32_t* first_key = nullptr;  // of these queries; or none
  float scale = 1;
  const float* scores = nullptr;  // [keys, kQueries]
  const float* dp = nullptr;      // [keys, kQueries]: gradient of the probabilities
  const float* lse = nullptr;     // [kQueries]
  const float* mean = nullptr;    // [kQueries]: of dp under the probabilities
  BFloat16* p = nullptr;          // probabilities as left-hand tiles: groups of keys, steps of queries
  BFloat16* ds = nullptr;         // gradient of the scores, likewise
  BFloat16* ds_right = nullptr;   // and as right-hand tiles: groups of queries, steps of keys ...
  int64_t ds_right_stride = 0;    // ... elements between groups
};
// p = e^(scale * score - lse), ds = scale * p * (dp - mean); 0 where the query does not attend to the key.
void Gradients(const ScoreBlock& block);

// to[r, c] = from[c, r], rounded; from has rows of `from_stride` floats, a multiple of 16.
void TransposeRows(Extent to_extent, const float* from, int64_t from_stride, Block<BFloat16> to);
// to = sums in blocks of 32 x 32 (Product::sums), rounded.
void StoreSums(Extent extent, const float* sums, Block<BFloat16> to);

}  // namespace sluice::cpu::tiles
