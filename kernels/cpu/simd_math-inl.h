// Exponential, sine and cosine of vectors of f32. Compiled once per instruction set, like simd-inl.h.

#include "kernels/cpu/simd-inl.h"

#if defined(SLUICE_KERNELS_CPU_SIMD_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SLUICE_KERNELS_CPU_SIMD_MATH_INL_H_
#undef SLUICE_KERNELS_CPU_SIMD_MATH_INL_H_
#else
#define SLUICE_KERNELS_CPU_SIMD_MATH_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {

// Smaller exponents would leave f32's normal numbers.
constexpr float kExpMinimum = -87.0f;

// e^x within 2 units in the last place for kExpMinimum <= x <= 88; NaN for NaN. x = n ln 2 + r with |r| <= ln 2 / 2, ln
// 2 in two parts, and the polynomial of SLEEF's expf (Shibata and Petrogalli, 2020) for e^r.
HWY_INLINE V ExpInRange(V x) {
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the lowest bits.
  const V shift = Set(12582912.0f);
  const V shifted = hn::MulAdd(x, Set(1.44269504088896341f), shift);
  const V n = hn::Sub(shifted, shift);
  const V r = hn::NegMulAdd(n, Set(1.428606765330187045e-06f), hn::NegMulAdd(n, Set(0.693145751953125f), x));
  V p = Set(0.000198527617612853646278f);
  p = hn::MulAdd(p, r, Set(0.00139304355252534151077f));
  p = hn::MulAdd(p, r, Set(0.00833336077630519866943f));
  p = hn::MulAdd(p, r, Set(0.0416664853692054748535f));
  p = hn::MulAdd(p, r, Set(0.166666671633720397949f));
  p = hn::MulAdd(p, r, Set(0.5f));
  p = hn::MulAdd(hn::Mul(r, r), p, hn::Add(r, Set(1.0f)));
  // Times 2^n: n added to the exponent.
  const I32Tag i32;
  const auto exponent = hn::ShiftLeft<23>(hn::BitCast(i32, shifted));
  return hn::BitCast(F32Tag(), hn::Add(hn::BitCast(i32, p), exponent));
}

// 1 / x within 2 units in the last place for 2^-126 < x < 2^126; NaN for NaN. Dividing sixteen numbers takes as long as
// thirty other instructions: there, Newton's step from the processor's 14 bits.
HWY_INLINE V Reciprocal(V x) {
#if HWY_TARGET <= HWY_AVX3
  const V r = hn::ApproximateReciprocal(x);
  return hn::MulAdd(r, hn::NegMulAdd(x, r, Set(1.0f)), r);
#else
  return hn::Div(Set(1.0f), x);
#endif
}

// Keep a NaN, unlike Max and Min on some targets.
HWY_INLINE V AtLeast(float limit, V x) { return hn::IfThenElse(hn::Lt(x, Set(limit)), Set(limit), x); }
HWY_INLINE V AtMost(float limit, V x) { return hn::IfThenElse(hn::Gt(x, Set(limit)), Set(limit), x); }

// e^x for x <= 88; 0 below kExpMinimum.
HWY_INLINE V Exp(V x) { return hn::IfThenZeroElse(hn::Lt(x, Set(kExpMinimum)), ExpInRange(AtLeast(kExpMinimum, x))); }

// Sine of |r| <= pi/4 within 2 units in the last place, and cosine likewise: polynomials of Cephes' sinf and cosf
// (Moshier).
HWY_INLINE V SinNearZero(V r) {
  const V r2 = hn::Mul(r, r);
  V p = hn::MulAdd(Set(-1.9515295891e-4f), r2, Set(8.3321608736e-3f));
  p = hn::MulAdd(p, r2, Set(-1.6666654611e-1f));
  return hn::MulAdd(hn::Mul(p, r2), r, r);
}
HWY_INLINE V CosNearZero(V r) {
  const V r2 = hn::Mul(r, r);
  V p = hn::MulAdd(Set(2.443315711809948e-5f), r2, Set(-1.388731625493765e-3f));
  p = hn::MulAdd(p, r2, Set(4.166664568298827e-2f));
  return hn::MulAdd(hn::Mul(p, r2), r2, hn::NegMulAdd(Set(0.5f), r2, Set(1.0f)));
}

}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
