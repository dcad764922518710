#include "kernels/cpu/cross_entropy.h"

#include <cmath>

#include "kernels/cpu/simd_targets.h"
#include "kernels/cpu/tensor_check.h"
#include "kernels/cpu/work_split.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/cross_entropy.cc"
#include "hwy/foreach_target.h"
// In this order.
#include "kernels/cpu/simd_math-inl.h"

#ifndef SLUICE_KERNELS_CPU_CROSS_ENTROPY_ONCE
#define SLUICE_KERNELS_CPU_CROSS_ENTROPY_ONCE
namespace sluice::cpu {
namespace {

inline float AsFloat(float value) { return value; }
inline float AsFloat(BFloat16 value) { return ToFloat(value); }
inline void Assign(float value, float& target) { target = value; }
inline void Assign(float value, BFloat16& target) { target = ToBFloat16(value); }

}  // namespace
}  // namespace sluice::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {
namespace {

// The largest of n elements; a NaN among them may be passed over.
template <class T>
float Maximum(const T* x, int64_t n) {
  const V first = Set(AsFloat(x[0]));
  const int64_t lanes = Lanes();
  V max0 = first, max1 = first;
  int64_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    max0 = hn::Max(max0, Load(x + i, Whole()));
    max1 = hn::Max(max1, Load(x + i + lanes, Whole()));
  }
  for (; i + lanes <= n; i += lanes) max0 = hn::Max(max0, Load(x + i, Whole()));
  if (i < n) {
    const auto inside = hn::FirstN(F32Tag(), static_cast<size_t>(n - i));
    max1 = hn::Max(max1, hn::IfThenElse(inside, Load(x + i, Part{n - i}), first));
  }
  return hn::GetLane(hn::MaxOfLanes(F32Tag(), hn::Max(max0, max1)));
}

template <class T>
float LogSumExp(const T* logits, int64_t n) {
  const float maximum = Maximum(logits, n);
  const V shift = Set(maximum);
  const float sum =
      SumOverRow(n, [&](int64_t i, auto part) SIMD_LAMBDA { return Exp(hn::Sub(Load(logits + i, part), shift)); });
  return static_cast<float>(maximum + std::log(double{sum}));
}

template <class T>
double RowLoss(const CrossEntropyForwardArgs& args, int64_t row) {
  const int32_t target = args.targets.as<int32_t>()[row];
  if (target < 0) return 0;
  return double{args.lse.as<float>()[row]} - AsFloat(args.logits.as<T>()[row * args.logits.columns() + target]);
}

template <class T, class G>
void GradientRow(const CrossEntropyBackwardArgs& args, int64_t row) {
  const int64_t columns = args.logits.columns();
  const T* logits = args.logits.as<T>() + row * columns;
  G* dlogits = args.dlogits.as<G>() + row * columns;
  const int32_t target = args.targets.as<int32_t>()[row];
  if (target < 0) {
    ForEachVector(columns, [&](int64_t i, auto part) SIMD_LAMBDA { Store(Set(0), dlogits + i, part); });
    return;
  }
  const float lse = args.lse.as<float>()[row];
  // p - 1 without cancellation; taken before dlogits may overwrite the logit.
  const double target_gradient = std::expm1(double{AsFloat(logits[target])} - lse);
  const V shift = Set(lse), scale = Set(args.scale);
  ForEachVector(columns, [&](int64_t i, auto part) SIMD_LAMBDA {
    Store(hn::Mul(Exp(hn::Sub(Load(logits + i, part), shift)), scale), dlogits + i, part);
  });
  Assign(static_cast<float>(target_gradient * args.scale), dlogits[target]);
}

void LogSumExpRows(const CrossEntropyForwardArgs& args, int64_t begin, int64_t end) {
  const int64_t columns = args.logits.columns();
  for (int64_t row = begin; row < end; ++row) {
    args.lse.as<float>()[row] = args.logits.dtype == DType::kBF16
                                    ? LogSumExp(args.logits.as<BFloat16>() + row * columns, columns)
                                    : LogSumExp(args.logits.as<float>() + row * columns, columns);
  }
}

double TotalLoss(const CrossEntropyForwardArgs& args) {
  const auto row_loss = args.logits.dtype == DType::kBF16 ? RowLoss<BFloat16> : RowLoss<float>;
  double total = 0;
  for (int64_t row = 0; row < args.logits.rows(); ++row) total += row_loss(args, row);
  return total;
}

void CrossEntropyGradientRows(const CrossEntropyBackwardArgs& args, int64_t begin, int64_t end) {
  auto row_function = GradientRow<float, float>;
  if (args.dlogits.dtype == DType::kBF16) row_function = GradientRow<float, BFloat16>;
  if (args.logits.dtype == DType::kBF16) row_function = GradientRow<BFloat16, BFloat16>;
  for (int64_t row = begin; row < end; ++row) row_function(args, row);
}

}  // namespace
}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::cpu {

HWY_EXPORT(LogSumExpRows);
HWY_EXPORT(TotalLoss);
HWY_EXPORT(CrossEntropyGradientRows);

namespace {

void CheckTargets(const TensorView& targets, const TensorView& logits) {
  CheckVector("targets", targets, logits.rows(), DType::kI32);
  for (int64_t row = 0; row < logits.rows(); ++row) {
    CHECK_LT(targets.as<int32_t>()[row], logits.columns()) << "target of row " << row;
  }
}

}  // namespace

void CrossEntropyForward(Team& team, const CrossEntropyForwardArgs& args) {
  const int64_t rows = args.logits.rows(), columns = args.logits.columns();
  CheckCompute("logits", args.logits);
  CheckTargets(args.targets, args.logits);
  CheckVector("lse", args.lse, rows, DType::kF32);
  CheckVector("total", args.total, 1, DType::kF32);
  ForEachRowBlock(team, rows, columns, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(LogSumExpRows)(args, begin, end);
  });
  *args.total.as<float>() = static_cast<float>(HWY_DYNAMIC_DISPATCH(TotalLoss)(args));
}

void CrossEntropyBackward(Team& team, const CrossEntropyBackwardArgs& args) {
  const int64_t rows = args.logits.rows(), columns = args.logits.columns();
  CheckCompute("logits", args.logits);
  CheckTargets(args.targets, args.logits);
  CheckVector("lse", args.lse, rows, DType::kF32);
  CheckCompute("dlogits", args.dlogits);
  CheckMatrix("dlogits", args.dlogits, rows, columns, args.dlogits.dtype);
  CHECK(args.logits.dtype == DType::kF32 || args.dlogits.dtype == DType::kBF16) << "dlogits is f32, logits bf16";
  ForEachRowBlock(team, rows, columns, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(CrossEntropyGradientRows)(args, begin, end);
  });
}

}  // namespace sluice::cpu
#endif  // HWY_ONCE
