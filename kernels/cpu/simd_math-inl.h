// Exponential, sigmoid, sine and cosine of vectors of f32. Compiled once per instruction set, like simd-inl.h.

#include "kernels/cpu/simd-inl.h"

#if defined(SLUICE_KERNELS_CPU_SIMD_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SLUICE_KERNELS_CPU_SIMD_MATH_INL_H_
#undef SLUICE_KERNELS_CPU_SIMD_MATH_INL_H_
#else
#define SLUICE_KERNELS_CPU_SIMD_MATH_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {

// 2^n as f32. REQUIRES: -126 <= n <= 127.
HWY_INLINE V PowerOfTwo(hn::Vec<I32Tag> n) {
  return hn::BitCast(F32Tag(), hn::ShiftLeft<23>(hn::Add(n, hn::Set(I32Tag(), 127))));
}

// e^x within 2 units in the last place; 0 far below, infinity far above, NaN for NaN. x = n ln 2 + r with |r| <= ln 2 /
// 2, ln 2 in two parts, and the polynomial of SLEEF's expf (Shibata and Petrogalli, 2020) for e^r.
HWY_INLINE V Exp(V x) {
  x = hn::IfThenElse(hn::Lt(x, Set(-104.0f)), Set(-104.0f), x);
  x = hn::IfThenElse(hn::Gt(x, Set(89.0f)), Set(89.0f), x);
  const V n = hn::Round(hn::Mul(x, Set(1.44269504088896341f)));
  const V r = hn::NegMulAdd(n, Set(1.428606765330187045e-06f), hn::NegMulAdd(n, Set(0.693145751953125f), x));
  V p = Set(0.000198527617612853646278f);
  p = hn::MulAdd(p, r, Set(0.00139304355252534151077f));
  p = hn::MulAdd(p, r, Set(0.00833336077630519866943f));
  p = hn::MulAdd(p, r, Set(0.0416664853692054748535f));
  p = hn::MulAdd(p, r, Set(0.166666671633720397949f));
  p = hn::MulAdd(p, r, Set(0.5f));
  p = hn::MulAdd(hn::Mul(r, r), p, hn::Add(r, Set(1.0f)));
  // 2^n in two factors, since n reaches from -150 to 128.
  const auto whole = hn::ConvertTo(I32Tag(), n);
  const auto half = hn::ShiftRight<1>(whole);
  return hn::Mul(hn::Mul(p, PowerOfTwo(half)), PowerOfTwo(hn::Sub(whole, half)));
}

// 1 / (1 + e^-x), relatively accurate for negative x too.
HWY_INLINE V Sigmoid(V x) { return hn::Div(Set(1.0f), hn::Add(Set(1.0f), Exp(hn::Neg(x)))); }

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
