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

HWY_INLINE int64_t RoundUpToVector(int64_t count) { return (count + Lanes() - 1) / Lanes() * Lanes(); }

// Calls body(i, mask) for the vectors with keys that the query attends to, and which those are.
template <class Body>
HWY_INLINE void ForEachScore(const ScoreRow& row, Body body) {
  const F32Tag f32;
  const int64_t lanes = Lanes();
  for (int64_t i = row.first / lanes * lanes; i < row.end; i += lanes) {
    const M before = hn::FirstN(f32, static_cast<size_t>(std::max<int64_t>(0, row.first - i)));
    body(i, hn::AndNot(before, hn::FirstN(f32, static_cast<size_t>(row.end - i))));
  }
}

// Zeroes the vectors that ForEachScore() leaves out.
HWY_INLINE void ZeroOthers(const ScoreRow& row, float* values) {
  const int64_t lanes = Lanes();
  for (int64_t i = 0; i + lanes <= row.first; i += lanes) Store(Set(0), values + i, Whole());
  for (int64_t i = RoundUpToVector(row.end); i < row.keys; i += lanes) Store(Set(0), values + i, Whole());
}

SoftmaxSum ExponentiateRow(const ScoreRow& row, float scale) {
  float* scores = row.scores;
  const V factor = Set(scale), lowest = Set(-std::numeric_limits<float>::infinity());
  V largest = lowest;
  ForEachScore(row, [&](int64_t i, M mask) SIMD_LAMBDA {
    largest = hn::Max(largest, hn::IfThenElse(mask, hn::Mul(Load(scores + i, Whole()), factor), lowest));
  });
  const float max = hn::GetLane(hn::MaxOfLanes(F32Tag(), largest));
  const V center = Set(max);
  V sum = Set(0);
  ForEachScore(row, [&](int64_t i, M mask) SIMD_LAMBDA {
    const V e = hn::IfThenElseZero(mask, Exp(hn::MulSub(Load(scores + i, Whole()), factor, center)));
    Store(e, scores + i, Whole());
    sum = hn::Add(sum, e);
  });
  ZeroOthers(row, scores);
  return {max, SumOfLanes(sum)};
}

void ScoreGradientsOfRow(const ScoreRow& row, const RowGradient& gradient, float* dp) {
  float* scores = row.scores;
  const V factor = Set(gradient.scale), center = Set(gradient.lse), mean = Set(gradient.mean);
  ForEachScore(row, [&](int64_t i, M mask) SIMD_LAMBDA {
    const V p = hn::IfThenElseZero(mask, Exp(hn::MulSub(Load(scores + i, Whole()), factor, center)));
    const V slope = hn::IfThenElseZero(mask, hn::Sub(Load(dp + i, Whole()), mean));
    Store(p, scores + i, Whole());
    Store(hn::Mul(hn::Mul(p, factor), slope), dp + i, Whole());
  });
  ZeroOthers(row, scores);
  ZeroOthers(row, dp);
}

template <class T>
float DotOfRows(int64_t n, const T* a, const T* b) {
  return SumOverRow(n, [&](int64_t i, auto part) SIMD_LAMBDA { return hn::Mul(Load(a + i, part), Load(b + i, part)); });
}
float DotF(int64_t n, const float* a, const float* b) { return DotOfRows(n, a, b); }
float DotB(int64_t n, const BFloat16* a, const BFloat16* b) { return DotOfRows(n, a, b); }

template <class T>
void ScaleRow(int64_t n, float factor, const float* values, T* to) {
  const V by = Set(factor);
  ForEachVector(n, [&](int64_t i, auto part) SIMD_LAMBDA { Store(hn::Mul(Load(values + i, part), by), to + i, part); });
}
void ScaleF(int64_t n, float factor, const float* values, float* to) { ScaleRow(n, factor, values, to); }
void ScaleB(int64_t n, float factor, const float* values, BFloat16* to) { ScaleRow(n, factor, values, to); }

}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::cpu {

HWY_EXPORT(ExponentiateRow);
HWY_EXPORT(ScoreGradientsOfRow);
HWY_EXPORT(DotF);
HWY_EXPORT(DotB);
HWY_EXPORT(ScaleF);
HWY_EXPORT(ScaleB);

SoftmaxSum Exponentiate(const ScoreRow& row, float scale) { return HWY_DYNAMIC_DISPATCH(ExponentiateRow)(row, scale); }
void ScoreGradients(const ScoreRow& row, const RowGradient& gradient, float* dp) {
  HWY_DYNAMIC_DISPATCH(ScoreGradientsOfRow)(row, gradient, dp);
}
float Dot(int64_t n, const float* a, const float* b) { return HWY_DYNAMIC_DISPATCH(DotF)(n, a, b); }
float Dot(int64_t n, const BFloat16* a, const BFloat16* b) { return HWY_DYNAMIC_DISPATCH(DotB)(n, a, b); }
void Scale(int64_t n, float factor, const float* values, float* to) {
  HWY_DYNAMIC_DISPATCH(ScaleF)(n, factor, values, to);
}
void Scale(int64_t n, float factor, const float* values, BFloat16* to) {
  HWY_DYNAMIC_DISPATCH(ScaleB)(n, factor, values, to);
}

}  // namespace sluice::cpu
#endif  // HWY_ONCE
