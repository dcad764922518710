// Attention in double precision, written from its definition and without regard to speed.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/operations.h"

namespace sluice::reference {

using Values = std::vector<double>;

// Attention with the whole matrix of probabilities, straight from the definition.
class Attention {
 public:
  Attention(const AttentionShape& shape, const Values& qkv, const std::vector<int32_t>& first_key)
      : s_(shape), qkv_(qkv), probability_(s_.rows * s_.heads * s_.sequence * s_.sequence) {
    y.resize(s_.rows * s_.sequence * s_.heads * s_.head_size);
    lse.resize(s_.rows * s_.heads * s_.sequence);
    for (int64_t b = 0; b < s_.rows; ++b) {
      for (int64_t h = 0; h < s_.heads; ++h) {
        for (int64_t t = 0; t < s_.sequence; ++t) {
          Query(b, h, t, first_key.empty() ? 0 : first_key[b * s_.sequence + t]);
        }
      }
    }
  }

  Values y;
  Values lse;

  // dqkv for a gradient dy of y: the softmax' Jacobian, written out.
  Values Backward(const Values& dy) const {
    Values dqkv(qkv_.size());
    for (int64_t b = 0; b < s_.rows; ++b) {
      for (int64_t h = 0; h < s_.heads; ++h) {
        for (int64_t t = 0; t < s_.sequence; ++t) QueryBackward(dy, b, h, t, dqkv);
      }
    }
    return dqkv;
  }

 private:
  int64_t Width() const { return (s_.heads + 2 * s_.kv_heads) * s_.head_size; }
  int64_t QueryAt(int64_t b, int64_t h, int64_t t) const { return (b * s_.sequence + t) * Width() + h * s_.head_size; }
  int64_t KeyAt(int64_t b, int64_t h, int64_t t) const {
    return QueryAt(b, s_.heads + h / (s_.heads / s_.kv_heads), t);
  }
  int64_t ValueAt(int64_t b, int64_t h, int64_t t) const { return KeyAt(b, h, t) + s_.kv_heads * s_.head_size; }
  int64_t OutputAt(int64_t b, int64_t h, int64_t t) const {
    return ((b * s_.sequence + t) * s_.heads + h) * s_.head_size;
  }
  int64_t ProbabilityAt(int64_t b, int64_t h, int64_t t) const {
    return ((b * s_.heads + h) * s_.sequence + t) * s_.sequence;
  }
  double Dot(const Values& a, int64_t i, const Values& b, int64_t j) const {
    double sum = 0;
    for (int64_t d = 0; d < s_.head_size; ++d) sum += a[i + d] * b[j + d];
    return sum;
  }

  void Query(int64_t b, int64_t h, int64_t t, int64_t first) {
    double sum = 0;
    double* p = &probability_[ProbabilityAt(b, h, t)];
    for (int64_t k = first; k <= t; ++k) {
      sum += p[k] = std::exp(s_.scale * Dot(qkv_, QueryAt(b, h, t), qkv_, KeyAt(b, h, k)));
    }
    lse[(b * s_.heads + h) * s_.sequence + t] = std::log(sum);
    for (int64_t k = first; k <= t; ++k) {
      p[k] /= sum;
      for (int64_t d = 0; d < s_.head_size; ++d) y[OutputAt(b, h, t) + d] += p[k] * qkv_[ValueAt(b, h, k) + d];
    }
  }

  void QueryBackward(const Values& dy, int64_t b, int64_t h, int64_t t, Values& dqkv) const {
    const double* p = &probability_[ProbabilityAt(b, h, t)];
    Values dp(t + 1);
    double mean = 0;  // of dp under p
    for (int64_t k = 0; k <= t; ++k) {
      dp[k] = Dot(dy, OutputAt(b, h, t), qkv_, ValueAt(b, h, k));
      mean += p[k] * dp[k];
    }
    for (int64_t k = 0; k <= t; ++k) {
      const double ds = s_.scale * p[k] * (dp[k] - mean);
      for (int64_t d = 0; d < s_.head_size; ++d) {
        dqkv[QueryAt(b, h, t) + d] += ds * qkv_[KeyAt(b, h, k) + d];
        dqkv[KeyAt(b, h, k) + d] += ds * qkv_[QueryAt(b, h, t) + d];
        dqkv[ValueAt(b, h, k) + d] += p[k] * dy[OutputAt(b, h, t) + d];
      }
    }
  }

  const AttentionShape s_;
  const Values qkv_;
  Values probability_;  // [B, H, T, T], 0 where a key is not attended to
};

}  // namespace sluice::reference
