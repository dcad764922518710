#include "kernels/cpu/norm.h"

#include <cmath>

#include "kernels/cpu/simd_targets.h"
#include "kernels/cpu/work_split.h"
#include "kernels/operation_check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/norm.cc"
#include "hwy/foreach_target.h"
// In this order.
#include "kernels/cpu/simd-inl.h"

#ifndef SLUICE_KERNELS_CPU_NORM_ONCE
#define SLUICE_KERNELS_CPU_NORM_ONCE
namespace sluice::cpu {
// Columns whose weight gradient one thread sums, some cache lines at a time of each row, and the rows that it sums
// before adding them to the total, so that rounding errors grow with the groups only. Pieces of rows are too short for
// the processor to see what comes next: it is fetched kRowsAhead rows before.
constexpr int64_t kGradientColumns = 256;
constexpr int64_t kGradientRows = 64;
constexpr int64_t kRowsAhead = 8;
}  // namespace sluice::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {
namespace {

template <class T>
void ForwardRow(const NormForwardArgs& args, int64_t row) {
  const int64_t columns = args.x.columns();
  const T* x = args.x.as<T>() + row * columns;
  T* y = args.y.as<T>() + row * columns;
  const float* gamma = args.gamma.as<float>();
  const float* beta = args.beta.as<float>();
  const float count = static_cast<float>(columns);

  float mean = 0;
  if (args.kind == NormKind::kLayerNorm) {
    mean = SumOverRow(columns, [&](int64_t i, auto part) SIMD_LAMBDA { return Load(x + i, part); }) / count;
    args.mean.as<float>()[row] = mean;
  }
  const V center = Set(mean);
  const float square = SumOverRow(columns, [&](int64_t i, auto part) SIMD_LAMBDA {
    FetchAhead(x + i);
    FetchAhead(y + i);
    const V distance = hn::Sub(Load(x + i, part), center);
    return hn::Mul(distance, distance);
  });
  const float rstd = 1.0f / std::sqrt(square / count + args.epsilon);
  args.rstd.as<float>()[row] = rstd;
  const V scale = Set(rstd);
  if (beta != nullptr) {
    ForEachVector(columns, [&](int64_t i, auto part) SIMD_LAMBDA {
      const V normal = hn::Mul(hn::Sub(Load(x + i, part), center), scale);
      Store(hn::MulAdd(normal, Load(gamma + i, part), Load(beta + i, part)), y + i, part);
    });
  } else {
    ForEachVector(columns, [&](int64_t i, auto part) SIMD_LAMBDA {
      Store(hn::Mul(hn::Mul(Load(x + i, part), scale), Load(gamma + i, part)), y + i, part);
    });
  }
}

// With n = (x - mean) * rstd and g = dy * gamma: dx = rstd * (g - average(g) - n * average(g * n)), for RMSNorm without
// mean and average(g).
template <class T>
void InputGradientRow(const NormInputGradientArgs& args, int64_t row) {
  const int64_t columns = args.x.columns();
  const T* x = args.x.as<T>() + row * columns;
  const T* dy = args.dy.as<T>() + row * columns;
  const T* add = args.add ? args.add.as<T>() + row * columns : nullptr;
  T* dx = args.dx.as<T>() + row * columns;
  const float* gamma = args.gamma.as<float>();
  const float count = static_cast<float>(columns);
  const bool centered = args.kind == NormKind::kLayerNorm;
  const V center = Set(centered ? args.mean.as<float>()[row] : 0.0f);
  const V scale = Set(args.rstd.as<float>()[row]);

  const auto scaled = [&](int64_t i, auto part)
                          SIMD_LAMBDA { return hn::Mul(Load(dy + i, part), Load(gamma + i, part)); };
  const auto normal = [&](int64_t i, auto part)
                          SIMD_LAMBDA { return hn::Mul(hn::Sub(Load(x + i, part), center), scale); };
  const V average = Set(centered ? SumOverRow(columns, scaled) / count : 0.0f);
  const V slope = Set(SumOverRow(columns,
                                 [&](int64_t i, auto part) SIMD_LAMBDA {
                                   FetchAhead(x + i);
                                   FetchAhead(dy + i);
                                   FetchAhead(dx + i);
                                   return hn::Mul(scaled(i, part), normal(i, part));
                                 }) /
                      count);
  ForEachVector(columns, [&](int64_t i, auto part) SIMD_LAMBDA {
    const V inner = hn::NegMulAdd(normal(i, part), slope, hn::Sub(scaled(i, part), average));
    const V result = hn::Mul(inner, scale);
    Store(add == nullptr ? result : hn::Add(result, Load(add + i, part)), dx + i, part);
  });
}

// Adds the weight gradient of kRows rows, `width` columns from `first` on, to the sums. Several rows at once, so that
// the sums are loaded and stored less often.
template <int kRows, class T>
HWY_INLINE void SumRows(const NormWeightGradientArgs& args, int64_t row, int64_t first, int64_t width, float* dgamma,
                        float* dbeta) {
  const int64_t columns = args.x.columns();
  const T* x = args.x.as<T>() + row * columns + first;
  const T* dy = args.dy.as<T>() + row * columns + first;
  V center[kRows], scale[kRows];
  for (int r = 0; r < kRows; ++r) {
    center[r] = Set(args.mean ? args.mean.as<float>()[row + r] : 0.0f);
    scale[r] = Set(args.rstd.as<float>()[row + r]);
  }
  ForEachVector(width, [&](int64_t i, auto part) SIMD_LAMBDA {
    V gamma_sum = Load(dgamma + i, part), beta_sum = Load(dbeta + i, part);
    for (int r = 0; r < kRows; ++r) {
      __builtin_prefetch(dy + (r + kRowsAhead) * columns + i);
      __builtin_prefetch(x + (r + kRowsAhead) * columns + i);
      const V gradient = Load(dy + r * columns + i, part);
      const V normal = hn::Mul(hn::Sub(Load(x + r * columns + i, part), center[r]), scale[r]);
      gamma_sum = hn::MulAdd(gradient, normal, gamma_sum);
      beta_sum = hn::Add(beta_sum, gradient);
    }
    Store(gamma_sum, dgamma + i, part);
    Store(beta_sum, dbeta + i, part);
  });
}

// Adds the weight gradient of rows [begin, end) to dgamma and dbeta.
template <class T>
void SumGroup(const NormWeightGradientArgs& args, int64_t begin, int64_t end, int64_t first, int64_t width,
              float* dgamma, float* dbeta) {
  alignas(64) float gamma_sums[kGradientColumns] = {}, beta_sums[kGradientColumns] = {};
  int64_t row = begin;
  for (; row + 4 <= end; row += 4) SumRows<4, T>(args, row, first, width, gamma_sums, beta_sums);
  for (; row < end; ++row) SumRows<1, T>(args, row, first, width, gamma_sums, beta_sums);
  ForEachVector(width, [&](int64_t i, auto part) SIMD_LAMBDA {
    Store(hn::Add(Load(dgamma + i, part), Load(gamma_sums + i, part)), dgamma + i, part);
    Store(hn::Add(Load(dbeta + i, part), Load(beta_sums + i, part)), dbeta + i, part);
  });
}

void WriteSums(const float* sums, int64_t width, Accumulate accumulate, float* gradient) {
  ForEachVector(width, [&](int64_t i, auto part) SIMD_LAMBDA {
    const V sum = Load(sums + i, part);
    Store(accumulate == Accumulate::kAdd ? hn::Add(Load(gradient + i, part), sum) : sum, gradient + i, part);
  });
}

void NormForwardRows(const NormForwardArgs& args, int64_t begin, int64_t end) {
  const auto row_function = args.x.dtype == DType::kBF16 ? ForwardRow<BFloat16> : ForwardRow<float>;
  for (int64_t row = begin; row < end; ++row) row_function(args, row);
}

void NormInputGradientRows(const NormInputGradientArgs& args, int64_t begin, int64_t end) {
  const auto row_function = args.x.dtype == DType::kBF16 ? InputGradientRow<BFloat16> : InputGradientRow<float>;
  for (int64_t row = begin; row < end; ++row) row_function(args, row);
}

void NormWeightGradientColumns(const NormWeightGradientArgs& args, int64_t first, int64_t last) {
  const int64_t rows = args.x.rows(), width = last - first;
  const auto sum_group = args.x.dtype == DType::kBF16 ? SumGroup<BFloat16> : SumGroup<float>;
  float dgamma[kGradientColumns] = {}, dbeta[kGradientColumns] = {};
  for (int64_t row = 0; row < rows; row += kGradientRows) {
    sum_group(args, row, std::min(rows, row + kGradientRows), first, width, dgamma, dbeta);
  }
  WriteSums(dgamma, width, args.accumulate, args.dgamma.as<float>() + first);
  if (args.dbeta) WriteSums(dbeta, width, args.accumulate, args.dbeta.as<float>() + first);
}

}  // namespace
}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::cpu {

HWY_EXPORT(NormForwardRows);
HWY_EXPORT(NormInputGradientRows);
HWY_EXPORT(NormWeightGradientColumns);

namespace {

}  // namespace

void NormForward(Team& team, const NormForwardArgs& args) {
  const int64_t rows = args.x.rows(), columns = args.x.columns();
  CheckArguments(args);
  ForEachRowBlock(team, rows, columns, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(NormForwardRows)(args, begin, end);
  });
}

void NormInputGradient(Team& team, const NormInputGradientArgs& args) {
  const int64_t rows = args.x.rows(), columns = args.x.columns();
  CheckArguments(args);
  ForEachRowBlock(team, rows, columns, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(NormInputGradientRows)(args, begin, end);
  });
}

void NormWeightGradient(Team& team, const NormWeightGradientArgs& args) {
  const int64_t columns = args.x.columns();
  CheckArguments(args);
  ForEachBlock(team, columns, kGradientColumns, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(NormWeightGradientColumns)(args, first, last);
  });
}

}  // namespace sluice::cpu
#endif  // HWY_ONCE
