#include "kernels/cuda/finish_linear.h"
#include "tests/gpu_sim/bodies/body.h"

namespace sluice::cuda {
namespace {

float At(const void* data, DType type, int64_t i) {
  return type == DType::kBF16 ? ToFloat(static_cast<const BFloat16*>(data)[i]) : static_cast<const float*>(data)[i];
}

void FinishLinearBody(const FinishLinearParams& p) {
  for (int64_t i = 0; i < p.rows * p.columns; ++i) {
    float y = p.sums[i];
    if (p.bias != nullptr) y += p.bias[i % p.columns];
    if (p.add != nullptr) y += At(p.add, p.add_type, i);
    if (p.y_type == DType::kBF16) {
      static_cast<BFloat16*>(p.y)[i] = ToBFloat16(y);
    } else {
      static_cast<float*>(p.y)[i] = y;
    }
  }
}

[[maybe_unused]] const bool registered = Register<FinishLinearParams, FinishLinearBody>("FinishLinear");

}  // namespace
}  // namespace sluice::cuda
