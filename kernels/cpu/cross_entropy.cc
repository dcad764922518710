#include "kernels/cpu/cross_entropy.h"

#include <cmath>

#include "kernels/cpu/simd_targets.h"
#include "kernels/cpu/work_split.h"
#include "kernels/operation_check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/cross_entropy.cc"
#include "hwy/foreach_target.h"
// In this order.
#include "kernels/cpu/simd_math-inl.h"

#ifndef SLUICE_KERNELS_CPU_CROSS_ENTROPY_ONCE
#define SLUICE_KERNELS_CPU_CROSS_ENTROPY_ONCE
namespace sluice::cpu {
namespace {

inline void Assign(float value, float& target) { target = value; }
inline void Assign(float value, BFloat16& target) { target = ToBFloat16(value); }

// The sum of a row's exponentials is sum * e^maximum.
struct ExponentialSum {
  double maximum = 0, sum = 0;
  double Log() const { return maximum + std::log(sum); }
};

// Of a token's statistics, one part of the logits after the other.
constexpr int64_t kStatistics = 3;
enum Statistic { kMaximum, kSum, kTargetLogit };

// Puts together what the parts of the logits tell of a row. The target's logit is 0 in all parts but one.
inline ExponentialSum JoinStatistics(const TensorView& statistics, int64_t row, float* target_logit) {
  const int64_t parts = statistics.shape[0], part_elements = statistics.shape[1] * kStatistics;
  const float* const first = statistics.as<float>() + row * kStatistics;
  ExponentialSum all{.maximum = first[kMaximum]};
  *target_logit = 0;
  for (int64_t p = 0; p < parts; ++p) all.maximum = std::max<double>(all.maximum, first[p * part_elements + kMaximum]);
  for (int64_t p = 0; p < parts; ++p) {
    const float* const part = first + p * part_elements;
    all.sum += part[kSum] * std::exp(part[kMaximum] - all.maximum);
    *target_logit += part[kTargetLogit];
  }
  return all;
}

// Logits whose exponentials are summed at a time: 8 KB stay in the innermost cache from their maximum to their sum.
constexpr int64_t kPieceElements = 2048;

}  // namespace
}  // namespace sluice::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {
namespace {

// The largest of n elements; a NaN among them may be passed over.
float Maximum(const float* x, int64_t n) {
  const V first = Set(x[0]);
  const int64_t lanes = Lanes();
  V max0 = first, max1 = first, max2 = first, max3 = first;
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    max0 = hn::Max(max0, Load(x + i, Whole()));
    max1 = hn::Max(max1, Load(x + i + lanes, Whole()));
    max2 = hn::Max(max2, Load(x + i + 2 * lanes, Whole()));
    max3 = hn::Max(max3, Load(x + i + 3 * lanes, Whole()));
  }
  for (; i + lanes <= n; i += lanes) max0 = hn::Max(max0, Load(x + i, Whole()));
  if (i < n) {
    const auto inside = hn::FirstN(F32Tag(), static_cast<size_t>(n - i));
    max1 = hn::Max(max1, hn::IfThenElse(inside, Load(x + i, Part{n - i}), first));
  }
  return hn::GetLane(hn::MaxOfLanes(F32Tag(), hn::Max(hn::Max(max0, max1), hn::Max(max2, max3))));
}

// In one pass: the sum so far is of e^(x - the maximum so far), and scaled when a larger one comes.
ExponentialSum SumExponentials(const float* logits, int64_t n) {
  double maximum = logits[0], sum = 0;
  for (int64_t begin = 0; begin < n; begin += kPieceElements) {
    const float* const piece = logits + begin;
    const int64_t count = std::min(n - begin, kPieceElements);
    const double largest = Maximum(piece, count);
    if (largest > maximum) {
      sum *= std::exp(maximum - largest);
      maximum = largest;
    }
    // Of nothing but logits of -infinity so far the sum is 0.
    const V shift = Set(std::isinf(maximum) && maximum < 0 ? 0.0f : static_cast<float>(maximum));
    sum +=
        SumOverRow(count, [&](int64_t i, auto part) SIMD_LAMBDA { return Exp(hn::Sub(Load(piece + i, part), shift)); });
  }
  return {maximum, sum};
}

// Fetches `next`, the row that the thread turns to after this one, while it computes: else memory would rest. A target
// outside of the columns belongs to another part of the logits.
template <class G>
void GradientRow(const float* logits, int64_t columns, int32_t target, double lse, float scale, const float* next,
                 G* dlogits) {
  // p - 1 without cancellation; taken before dlogits may overwrite the logit.
  const bool target_here = target >= 0 && target < columns;
  const double target_gradient = target_here ? std::expm1(logits[target] - lse) : 0;
  const V shift = Set(static_cast<float>(lse)), factor = Set(scale);
  ForEachVector(columns, [&](int64_t i, auto part) SIMD_LAMBDA {
    __builtin_prefetch(next + i, /*write=*/0, /*locality=*/2);
    Store(hn::Mul(Exp(hn::Sub(Load(logits + i, part), shift)), factor), dlogits + i, part);
  });
  if (target_here) Assign(static_cast<float>(target_gradient * scale), dlogits[target]);
}

template <class G>
void ZeroRow(int64_t columns, G* dlogits) {
  ForEachVector(columns, [&](int64_t i, auto part) SIMD_LAMBDA { Store(Set(0), dlogits + i, part); });
}

template <class G>
void Rows(const CrossEntropyArgs& args, int64_t begin, int64_t end) {
  const int64_t columns = args.logits.columns();
  for (int64_t row = begin; row < end; ++row) {
    const float* const logits = args.logits.as<float>() + row * columns;
    G* const dlogits = args.dlogits ? args.dlogits.as<G>() + row * columns : nullptr;
    const int32_t target = args.targets.as<int32_t>()[row];
    float& loss = args.losses.as<float>()[row];
    loss = 0;
    if (target < 0) {
      if (dlogits != nullptr) ZeroRow(columns, dlogits);
      continue;
    }
    float target_logit = args.statistics ? 0 : logits[target];
    const double lse =
        (args.statistics ? JoinStatistics(args.statistics, row, &target_logit) : SumExponentials(logits, columns))
            .Log();
    loss = static_cast<float>(lse - target_logit);
    const float* const next = row + 1 < end ? logits + columns : logits;
    const auto column = static_cast<int32_t>(target - args.columns.first);
    if (dlogits != nullptr) GradientRow(logits, columns, column, lse, args.scale, next, dlogits);
  }
}

void LogitStatisticsRows(const LogitStatisticsArgs& args, int64_t begin, int64_t end) {
  const int64_t columns = args.logits.columns();
  for (int64_t row = begin; row < end; ++row) {
    const float* const logits = args.logits.as<float>() + row * columns;
    float* const statistics = args.statistics.as<float>() + row * kStatistics;
    const int64_t target = args.targets.as<int32_t>()[row] - args.columns.first;
    const ExponentialSum sum = SumExponentials(logits, columns);
    statistics[kMaximum] = static_cast<float>(sum.maximum);
    statistics[kSum] = static_cast<float>(sum.sum);
    statistics[kTargetLogit] = target >= 0 && target < columns ? logits[target] : 0;
  }
}

void CrossEntropyRows(const CrossEntropyArgs& args, int64_t begin, int64_t end) {
  if (args.dlogits && args.dlogits.dtype == DType::kBF16) return Rows<BFloat16>(args, begin, end);
  Rows<float>(args, begin, end);
}

}  // namespace
}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::cpu {

HWY_EXPORT(CrossEntropyRows);
HWY_EXPORT(LogitStatisticsRows);

namespace {

// Rows of a block at least, so that there is a next one to fetch.
constexpr int64_t kRowsMin = 8;

void CheckTargets(const TensorView& targets, const TensorView& logits, const RowRange& columns) {
  const int64_t vocabulary = columns.vocabulary > 0 ? columns.vocabulary : logits.columns();
  for (int64_t row = 0; row < logits.rows(); ++row) {
    CHECK_LT(targets.as<int32_t>()[row], vocabulary) << "target of row " << row;
  }
}

template <class Body>
void ForEachBlockOfLogits(Team& team, const TensorView& logits, const Body& body) {
  ForEachBlock(team, logits.rows(), std::max(kRowsMin, kBlockElements / logits.columns()), body);
}

}  // namespace

void CrossEntropy(Team& team, const CrossEntropyArgs& args) {
  CheckArguments(args);
  CheckTargets(args.targets, args.logits, args.columns);
  ForEachBlockOfLogits(team, args.logits, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(CrossEntropyRows)(args, begin, end);
  });
  float& total = *args.total.as<float>();
  double sum = args.accumulate == Accumulate::kAdd ? total : 0;
  for (int64_t row = 0; row < args.logits.rows(); ++row) sum += args.losses.as<float>()[row];
  total = static_cast<float>(sum);
}

void LogitStatistics(Team& team, const LogitStatisticsArgs& args) {
  CheckArguments(args);
  CheckTargets(args.targets, args.logits, args.columns);
  ForEachBlockOfLogits(team, args.logits, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(LogitStatisticsRows)(args, begin, end);
  });
}

}  // namespace sluice::cpu
#endif  // HWY_ONCE
