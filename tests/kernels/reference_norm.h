// LayerNorm and RMSNorm in double precision, written from their definitions.
#pragma once

#include <cmath>
#include <vector>

#include "kernels/operations.h"

namespace sluice::reference {

struct Norm {
  NormKind kind;
  double epsilon;
  int64_t rows;
  int64_t columns;

  double Mean(const std::vector<double>& x, int64_t row) const {
    if (kind == NormKind::kRmsNorm) return 0;
    double sum = 0;
    for (int64_t c = 0; c < columns; ++c) sum += x[row * columns + c];
    return sum / columns;
  }
  double Rstd(const std::vector<double>& x, int64_t row) const {
    const double mean = Mean(x, row);
    double sum = 0;
    for (int64_t c = 0; c < columns; ++c) sum += std::pow(x[row * columns + c] - mean, 2);
    return 1 / std::sqrt(sum / columns + epsilon);
  }
  std::vector<double> Forward(const std::vector<double>& x, const std::vector<double>& gamma,
                              const std::vector<double>& beta) const {
    std::vector<double> y(x.size());
    for (int64_t row = 0; row < rows; ++row) {
      const double mean = Mean(x, row), rstd = Rstd(x, row);
      for (int64_t c = 0; c < columns; ++c) {
        y[row * columns + c] = (x[row * columns + c] - mean) * rstd * gamma[c] + beta[c];
      }
    }
    return y;
  }
  std::vector<double> InputGradient(const std::vector<double>& dy, const std::vector<double>& x,
                                    const std::vector<double>& gamma) const {
    std::vector<double> dx(x.size());
    for (int64_t row = 0; row < rows; ++row) {
      const double mean = Mean(x, row), rstd = Rstd(x, row);
      double sum = 0, slope = 0;
      for (int64_t c = 0; c < columns; ++c) {
        const double g = dy[row * columns + c] * gamma[c];
        if (kind == NormKind::kLayerNorm) sum += g;
        slope += g * (x[row * columns + c] - mean) * rstd;
      }
      for (int64_t c = 0; c < columns; ++c) {
        const double n = (x[row * columns + c] - mean) * rstd;
        dx[row * columns + c] = rstd * (dy[row * columns + c] * gamma[c] - (sum + n * slope) / columns);
      }
    }
    return dx;
  }
  void WeightGradient(const std::vector<double>& dy, const std::vector<double>& x, std::vector<double>& dgamma,
                      std::vector<double>& dbeta) const {
    dgamma.assign(columns, 0);
    dbeta.assign(columns, 0);
    for (int64_t row = 0; row < rows; ++row) {
      const double mean = Mean(x, row), rstd = Rstd(x, row);
      for (int64_t c = 0; c < columns; ++c) {
        dgamma[c] += dy[row * columns + c] * (x[row * columns + c] - mean) * rstd;
        dbeta[c] += dy[row * columns + c];
      }
    }
  }
};

}  // namespace sluice::reference
