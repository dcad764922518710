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

// Rows handled in step: the exponential is a long chain of operations, and several of them keep the processor busy.
constexpr int kRowsInStep = 4;

// Of the vector at i: the scores that the query attends to.
struct All {
  HWY_INLINE V KeepOr(V, V v) const { return v; }
};
struct Some {
  M mask;
  HWY_INLINE V KeepOr(V other, V v) const { return hn::IfThenElse(mask, v, other); }
};
HWY_INLINE Some Attended(const ScoreRange& range, int64_t i) {
  const F32Tag f32;
  const M before = hn::FirstN(f32, static_cast<size_t>(std::max<int64_t>(0, range.first - i)));
  return {hn::AndNot(before, hn::FirstN(f32, static_cast<size_t>(std::max<int64_t>(0, range.end - i))))};
}

// Calls body(r, i, All or Some) for every vector of kRows rows.
template <int kRows, class Body>
HWY_INLINE void ForEachScore(const ScoreRows& rows, Body body) {
  const int64_t lanes = Lanes();
  int64_t first = 0, end = rows.keys;
  for (int r = 0; r < kRows; ++r) {
    first = std::max(first, rows.ranges[r].first);
    end = std::min(end, rows.ranges[r].end);
  }
  for (int64_t i = 0; i < rows.keys; i += lanes) {
    if (i >= first && i + lanes <= end) {
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) body(r, i, All());
    } else {
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) body(r, i, Attended(rows.ranges[r], i));
    }
  }
}

template <int kRows>
HWY_INLINE void ExponentiateInStep(const ScoreRows& rows, float scale, SoftmaxSum* sums) {
  const V factor = Set(scale), lowest = Set(-std::numeric_limits<float>::infinity());
  const auto at = [&](int r, int64_t i) SIMD_LAMBDA { return rows.scores + r * rows.stride + i; };
  V largest[kRows], center[kRows], sum[kRows];
  for (int r = 0; r < kRows; ++r) largest[r] = lowest;
  ForEachScore<kRows>(rows, [&](int r, int64_t i, auto keys) SIMD_LAMBDA {
    largest[r] = hn::Max(largest[r], keys.KeepOr(lowest, hn::Mul(Load(at(r, i), Whole()), factor)));
  });
  for (int r = 0; r < kRows; ++r) {
    center[r] = hn::MaxOfLanes(F32Tag(), largest[r]);
    sum[r] = Set(0);
  }
  ForEachScore<kRows>(rows, [&](int r, int64_t i, auto keys) SIMD_LAMBDA {
    const V e = keys.KeepOr(Set(0), Exp(hn::MulSub(Load(at(r, i), Whole()), factor, center[r])));
    Store(e, at(r, i), Whole());
    sum[r] = hn::Add(sum[r], e);
  });
  for (int r = 0; r < kRows; ++r) sums[r] = {hn::GetLane(center[r]), SumOfLanes(sum[r])};
}

template <int kRows>
HWY_INLINE void ScoreGradientsInStep(const ScoreRows& rows, float scale, const RowGradient* gradients, float* dp) {
  const V factor = Set(scale);
  V center[kRows], mean[kRows];
  for (int r = 0; r < kRows; ++r) {
    center[r] = Set(gradients[r].lse);
    mean[r] = Set(gradients[r].mean);
  }
  ForEachScore<kRows>(rows, [&](int r, int64_t i, auto keys) SIMD_LAMBDA {
    float *score = rows.scores + r * rows.stride + i, *slope = dp + r * rows.stride + i;
    const V p = keys.KeepOr(Set(0), Exp(hn::MulSub(Load(score, Whole()), factor, center[r])));
    const V distance = keys.KeepOr(Set(0), hn::Sub(Load(slope, Whole()), mean[r]));
    Store(p, score, Whole());
    Store(hn::Mul(hn::Mul(p, factor), distance), slope, Whole());
  });
}

HWY_INLINE ScoreRows From(const ScoreRows& rows, int64_t row) {
  return {rows.rows - row, rows.keys, rows.ranges + row, rows.scores + row * rows.stride, rows.stride};
}

void ExponentiateRows(const ScoreRows& rows, float scale, SoftmaxSum* sums) {
  int64_t r = 0;
  for (; r + kRowsInStep <= rows.rows; r += kRowsInStep)
    ExponentiateInStep<kRowsInStep>(From(rows, r), scale, sums + r);
  for (; r < rows.rows; ++r) ExponentiateInStep<1>(From(rows, r), scale, sums + r);
}

void ScoreGradientsOfRows(const ScoreRows& rows, float scale, const RowGradient* gradients, float* dp) {
  int64_t r = 0;
  for (; r + kRowsInStep <= rows.rows; r += kRowsInStep) {
    ScoreGradientsInStep<kRowsInStep>(From(rows, r), scale, gradients + r, dp + r * rows.stride);
  }
  for (; r < rows.rows; ++r) ScoreGradientsInStep<1>(From(rows, r), scale, gradients + r, dp + r * rows.stride);
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

HWY_EXPORT(ExponentiateRows);
HWY_EXPORT(ScoreGradientsOfRows);
HWY_EXPORT(DotF);
HWY_EXPORT(DotB);
HWY_EXPORT(ScaleF);
HWY_EXPORT(ScaleB);

void Exponentiate(const ScoreRows& rows, float scale, SoftmaxSum* sums) {
  HWY_DYNAMIC_DISPATCH(ExponentiateRows)(rows, scale, sums);
}
void ScoreGradients(const ScoreRows& rows, float scale, const RowGradient* gradients, float* dp) {
  HWY_DYNAMIC_DISPATCH(ScoreGradientsOfRows)(rows, scale, gradients, dp);
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
