// The parts of attention that are no matrix product: softmax over rows of scores, and its gradient. SIMD,
// single-threaded.
#pragma once

#include <cstdint>

namespace sluice::cpu {

// A row of scores [0, keys), of which a query attends to [first, end).
struct ScoreRow {
  float* scores = nullptr;
  int64_t keys = 0;
  int64_t first = 0;
  int64_t end = 0;
};
struct SoftmaxSum {
  float max = 0;  // of the scaled scores
  float sum = 0;  // of the exponentials of their distances to it
};
// scores = exp(scale * scores - max), 0 where the query does not attend to the key.
SoftmaxSum Exponentiate(const ScoreRow& row, float scale);
// scores = exp(scale * scores - lse), 0 where the query does not attend to the key: the probabilities.
void Probabilities(const ScoreRow& row, float scale, float lse);
// dp = scale * p * (dp - mean) over n keys: the gradient of the unscaled scores from that of the probabilities.
void ScoreGradient(int64_t n, const float* p, float mean, float scale, float* dp);
// Sum of a[i] * b[i].
float Dot(int64_t n, const float* a, const float* b);
void Scale(int64_t n, float factor, float* values);

}  // namespace sluice::cpu
