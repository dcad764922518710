// AdamW in double precision (Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2,
// with the decay scaled by the learning rate).
#pragma once

#include <cmath>
#include <vector>

namespace sluice::reference {

struct AdamW {
  double learning_rate, beta1, beta2, epsilon, weight_decay;
  std::vector<double> parameter, m, v;

  void Step(const std::vector<double>& gradient, int64_t step) {
    for (size_t i = 0; i < gradient.size(); ++i) {
      m[i] = beta1 * m[i] + (1 - beta1) * gradient[i];
      v[i] = beta2 * v[i] + (1 - beta2) * gradient[i] * gradient[i];
      const double m_hat = m[i] / (1 - std::pow(beta1, step)), v_hat = v[i] / (1 - std::pow(beta2, step));
      parameter[i] -= learning_rate * (m_hat / (std::sqrt(v_hat) + epsilon) + weight_decay * parameter[i]);
    }
  }
};

}  // namespace sluice::reference
