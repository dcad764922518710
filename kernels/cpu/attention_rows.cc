#include "kernels/cpu/attention_rows.h"

#include <algorithm>
#include <limits>

#include "kernels/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_rows.cc"
#include "hwy/foreach_target.h"
// In this order.
#include "kernels/cpu/simd_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {

HWY_INLINE V KeepElse(V v, V, Whole) { return v; }
HWY_INLINE V KeepElse(V v, V other, Part part) {
  return hn::IfThenElse(hn::FirstN(F32Tag(), static_cast<size_t>(part.count)), v, other);
}

HWY_INLINE void ZeroOutside(const ScoreRow& row) {
  std::fill(row.scores, row.scores + row.first, 0.0f);
  std::fill(row.scores + row.end, row.scores + row.keys, 0.0f);
}

SoftmaxSum ExponentiateRow(const ScoreRow& row, float scale) {
  const F32Tag f32;
  const int64_t count = row.end - row.first;
  float* scores = row.scores + row.first;
  const V factor = Set(scale), lowest = Set(-std::numeric_limits<float>::infinity());
  V largest = lowest;
  ForEachVector(count, [&](int64_t i, auto part) SIMD_LAMBDA {
    largest = hn::Max(largest, KeepElse(hn::Mul(Load(scores + i, part), factor), lowest, part));
  });
  const float max = hn::GetLane(hn::MaxOfLanes(f32, largest));
  const V center = Set(max);
  const float sum = SumOverRow(count, [&](int64_t i, auto part) SIMD_LAMBDA {
    const V e = Exp(hn::MulSub(Load(scores + i, part), factor, center));
    Store(e, scores + i, part);
    return e;
  });
  ZeroOutside(row);
  return {max, sum};
}

void ProbabilitiesOfRow(const ScoreRow& row, float scale, float lse) {
  float* scores = row.scores + row.first;
  const V factor = Set(scale), center = Set(lse);
  ForEachVector(row.end - row.first, [&](int64_t i, auto part) SIMD_LAMBDA {
    Store(Exp(hn::MulSub(Load(scores + i, part), factor, center)), scores + i, part);
  });
  ZeroOutside(row);
}

void ScoreGradientOfRow(int64_t n, const float* p, float mean, float scale, float* dp) {
  const V center = Set(mean), factor = Set(scale);
  ForEachVector(n, [&](int64_t i, auto part) SIMD_LAMBDA {
    Store(hn::Mul(hn::Mul(Load(p + i, part), factor), hn::Sub(Load(dp + i, part), center)), dp + i, part);
  });
}

float DotOfRows(int64_t n, const float* a, const float* b) {
  return SumOverRow(n, [&](int64_t i, auto part) SIMD_LAMBDA { return hn::Mul(Load(a + i, part), Load(b + i, part)); });
}

void ScaleRow(int64_t n, float factor, float* values) {
  const V by = Set(factor);
  ForEachVector(
      n, [&](int64_t i, auto part) SIMD_LAMBDA { Store(hn::Mul(Load(values + i, part), by), values + i, part); });
}

}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::cpu {

HWY_EXPORT(ExponentiateRow);
HWY_EXPORT(ProbabilitiesOfRow);
HWY_EXPORT(ScoreGradientOfRow);
HWY_EXPORT(DotOfRows);
HWY_EXPORT(ScaleRow);

SoftmaxSum Exponentiate(const ScoreRow& row, float scale) { return HWY_DYNAMIC_DISPATCH(ExponentiateRow)(row, scale); }
void Probabilities(const ScoreRow& row, float scale, float lse) {
  HWY_DYNAMIC_DISPATCH(ProbabilitiesOfRow)(row, scale, lse);
}
void ScoreGradient(int64_t n, const float* p, float mean, float scale, float* dp) {
  HWY_DYNAMIC_DISPATCH(ScoreGradientOfRow)(n, p, mean, scale, dp);
}
float Dot(int64_t n, const float* a, const float* b) { return HWY_DYNAMIC_DISPATCH(DotOfRows)(n, a, b); }
void Scale(int64_t n, float factor, float* values) { HWY_DYNAMIC_DISPATCH(ScaleRow)(n, factor, values); }

}  // namespace sluice::cpu
#endif  // HWY_ONCE
