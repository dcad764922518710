// The parts of attention that are no matrix product: softmax over rows of scores, and its gradient. SIMD,
// single-threaded.
#pragma once

#include <cstdint>

#include "kernels/dtype.h"

namespace sluice::cpu {

// Rows of scores [0, keys), in each of which a query attends to [first, end). They are handled in whole vectors: behind
// the keys there is room for one.
struct ScoreRange {
  int64_t first = 0;
  int64_t end = 0;
};
struct ScoreRows {
  int64_t rows = 0;
  int64_t keys = 0;
  const ScoreRange* ranges = nullptr;  // of each row
  float* scores = nullptr;
  int64_t stride = 0;
};
struct SoftmaxSum {
  float max = 0;  // of the scaled scores
  float sum = 0;  // of the exponentials of their distances to it
};
// scores = exp(scale * scores - max), 0 where the query does not attend to the key.
void Exponentiate(const ScoreRows& rows, float scale, SoftmaxSum* sums);

struct RowGradient {
  float lse = 0;
  float mean = 0;  // of dp under the probabilities
};
// scores = exp(scale * scores - lse): the probabilities p. dp = scale * p * (dp - mean): the gradient of the unscaled
// scores from that of the probabilities, in rows like the scores. Both are 0 where the query does not attend to the
// key.
void ScoreGradients(const ScoreRows& rows, float scale, const RowGradient* gradients, float* dp);
// Sum of a[i] * b[i].
float Dot(int64_t n, const float* a, const float* b);
float Dot(int64_t n, const BFloat16* a, const BFloat16* b);
// to = factor * values
void Scale(int64_t n, float factor, const float* values, float* to);
void Scale(int64_t n, float factor, const float* values, BFloat16* to);

}  // namespace sluice::cpu
