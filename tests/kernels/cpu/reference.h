// Matrix products in double precision, written from their definitions and without regard to speed.
#pragma once

#include <cstdint>
#include <vector>

namespace sluice::reference {

using Values = std::vector<double>;

// y[m, n] = sum over k of x[m, k] w[n, k]
inline Values Linear(int64_t m, int64_t n, int64_t k, const Values& x, const Values& w) {
  Values y(m * n);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (int64_t l = 0; l < k; ++l) sum += x[i * k + l] * w[j * k + l];
      y[i * n + j] = sum;
    }
  }
  return y;
}

inline Values LinearInputGradient(int64_t m, int64_t n, int64_t k, const Values& dy, const Values& w) {
  Values dx(m * k);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t l = 0; l < k; ++l) dx[i * k + l] += dy[i * n + j] * w[j * k + l];
    }
  }
  return dx;
}

struct LinearGradients {
  Values dweight;
  Values dbias;
};
inline LinearGradients LinearWeightGradient(int64_t m, int64_t n, int64_t k, const Values& x, const Values& dy) {
  LinearGradients result{Values(n * k), Values(n)};
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      result.dbias[j] += dy[i * n + j];
      for (int64_t l = 0; l < k; ++l) result.dweight[j * k + l] += dy[i * n + j] * x[i * k + l];
    }
  }
  return result;
}

}  // namespace sluice::reference
