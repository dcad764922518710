// AdamW's update of an element, the same on every device: decoupled weight decay (Loshchilov and Hutter, ICLR 2019) in
// the order of PyTorch's AdamW: the parameter decays first.
#pragma once

#include <cmath>

#include "kernels/host_device.h"
#include "kernels/operations.h"

namespace sluice {

// What is the same for all elements of a step, computed in double and rounded once.
struct AdamWFactors {
  float decay;          // 1 - learning_rate * weight_decay
  float m_rate;         // 1 - beta1
  float v_keep;         // beta2
  float v_rate;         // 1 - beta2
  float negative_step;  // -learning_rate / (1 - beta1^step)
  float root_scale;     // 1 / sqrt(1 - beta2^step)
  float epsilon;
};

inline AdamWFactors FactorsOf(const AdamWArgs& args) {
  const double beta1 = args.beta1, beta2 = args.beta2, step = static_cast<double>(args.step);
  return {.decay = static_cast<float>(1 - double{args.learning_rate} * args.weight_decay),
          .m_rate = static_cast<float>(1 - beta1),
          .v_keep = args.beta2,
          .v_rate = static_cast<float>(1 - beta2),
          .negative_step = static_cast<float>(-args.learning_rate / (1 - std::pow(beta1, step))),
          .root_scale = static_cast<float>(1 / std::sqrt(1 - std::pow(beta2, step))),
          .epsilon = args.epsilon};
}

// g: the gradient, scaled by the step's decision. The products that end in a sum are rounded with it, as on the CPU's
// vectors.
SLUICE_HOST_DEVICE inline void UpdateAdamW(const AdamWFactors& f, float g, float& parameter, float& m, float& v) {
  m = fmaf(g - m, f.m_rate, m);
  v = fmaf(g * g, f.v_rate, v * f.v_keep);
  const float denominator = fmaf(sqrtf(v), f.root_scale, f.epsilon);
  parameter = fmaf(m / denominator, f.negative_step, parameter * f.decay);
}

}  // namespace sluice
