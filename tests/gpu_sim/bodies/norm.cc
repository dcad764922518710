#include "kernels/cuda/norm.h"

#include <algorithm>

#include "kernels/cpu/norm.h"
#include "kernels/cuda/column_sums.h"
#include "tests/gpu_sim/bodies/body.h"

namespace sluice::cuda {
namespace {

NormKind KindOf(const float* mean) { return mean != nullptr ? NormKind::kLayerNorm : NormKind::kRmsNorm; }

void NormForwardBody(const NormForwardParams& p) {
  cpu::NormForward(OneThread(), {.kind = KindOf(p.mean),
                                 .epsilon = p.epsilon,
                                 .x = Matrix(p.x, p.dtype, p.rows, p.columns),
                                 .gamma = Vector(p.gamma, DType::kF32, p.columns),
                                 .beta = Vector(p.beta, DType::kF32, p.columns),
                                 .y = Matrix(p.y, p.dtype, p.rows, p.columns),
                                 .mean = Vector(p.mean, DType::kF32, p.rows),
                                 .rstd = Vector(p.rstd, DType::kF32, p.rows)});
}

void NormInputGradientBody(const NormInputGradientParams& p) {
  cpu::NormInputGradient(OneThread(), {.kind = KindOf(p.mean),
                                       .dy = Matrix(p.dy, p.dtype, p.rows, p.columns),
                                       .x = Matrix(p.x, p.dtype, p.rows, p.columns),
                                       .gamma = Vector(p.gamma, DType::kF32, p.columns),
                                       .mean = Vector(p.mean, DType::kF32, p.rows),
                                       .rstd = Vector(p.rstd, DType::kF32, p.rows),
                                       .add = Matrix(p.add, p.dtype, p.rows, p.columns),
                                       .dx = Matrix(p.dx, p.dtype, p.rows, p.columns)});
}

void NormWeightPartialsBody(const NormWeightPartialsParams& p) {
  const int outputs = p.mean != nullptr ? 2 : 1;
  for (int64_t first = 0; first < p.rows; first += kGroupRows) {
    const int64_t rows = std::min(kGroupRows, p.rows - first), skipped = first * p.columns * SizeOf(p.dtype);
    float* const partials = p.partials + first / kGroupRows * outputs * p.columns;
    cpu::NormWeightGradient(
        OneThread(), {.kind = KindOf(p.mean),
                      .dy = Matrix(static_cast<const std::byte*>(p.dy) + skipped, p.dtype, rows, p.columns),
                      .x = Matrix(static_cast<const std::byte*>(p.x) + skipped, p.dtype, rows, p.columns),
                      .mean = outputs == 2 ? Vector(p.mean + first, DType::kF32, rows) : TensorView{},
                      .rstd = Vector(p.rstd + first, DType::kF32, rows),
                      .dgamma = Vector(partials, DType::kF32, p.columns),
                      .dbeta = outputs == 2 ? Vector(partials + p.columns, DType::kF32, p.columns) : TensorView{},
                      .accumulate = Accumulate::kOverwrite});
  }
}

template <class T>
void SumColumns(const T* dy, int64_t rows, int64_t columns, float* sums) {
  std::fill_n(sums, columns, 0.0f);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t c = 0; c < columns; ++c) {
      if constexpr (sizeof(T) == sizeof(BFloat16)) {
        sums[c] += ToFloat(dy[row * columns + c]);
      } else {
        sums[c] += dy[row * columns + c];
      }
    }
  }
}

void BiasPartialsBody(const BiasPartialsParams& p) {
  for (int64_t first = 0; first < p.rows; first += kGroupRows) {
    const int64_t rows = std::min(kGroupRows, p.rows - first), skipped = first * p.columns;
    float* const sums = p.partials + first / kGroupRows * p.columns;
    if (p.dtype == DType::kBF16) {
      SumColumns(static_cast<const BFloat16*>(p.dy) + skipped, rows, p.columns, sums);
    } else {
      SumColumns(static_cast<const float*>(p.dy) + skipped, rows, p.columns, sums);
    }
  }
}

void SumPartialsBody(const SumPartialsParams& p) {
  for (int64_t c = 0; c < p.partial_columns; ++c) {
    float sum = 0;
    for (int64_t g = 0; g < p.groups; ++g) sum += p.partials[g * p.partial_columns + c];
    float& target = c < p.columns ? p.first[c] : p.second[c - p.columns];
    target = p.accumulate == Accumulate::kAdd ? target + sum : sum;
  }
}

[[maybe_unused]] const bool registered[] = {
    Register<NormForwardParams, NormForwardBody>("NormForward"),
    Register<NormInputGradientParams, NormInputGradientBody>("NormInputGradient"),
    Register<NormWeightPartialsParams, NormWeightPartialsBody>("NormWeightPartials"),
    Register<BiasPartialsParams, BiasPartialsBody>("BiasPartials"),
    Register<SumPartialsParams, SumPartialsBody>("SumPartials"),
};

}  // namespace
}  // namespace sluice::cuda
