#include "kernels/cpu/activation.h"

#include "kernels/cpu/simd_targets.h"
#include "kernels/cpu/work_split.h"
#include "kernels/operation_check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/activation.cc"
#include "hwy/foreach_target.h"
// In this order.
#include "kernels/cpu/simd_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {
namespace {

// 0.5 * (1 + tanh(u)) = sigmoid(2u), u = sqrt(2/pi) * (x + 0.044715 x^3), keeps relative accuracy for negative x:
// GELU(x) = x * sigmoid(kLinear * x + kCubic * x^3).
constexpr float kLinear = 1.5957691216057308f;
constexpr float kCubic = 0.07135481627159602f;

// Farther out GELU and SiLU are 0 or the identity but for 1e-35, and e^-z would leave the range of ExpInRange().
constexpr float kGeluLimit = 9.9f;
constexpr float kSiluLimit = 86.0f;

HWY_INLINE V Gelu(V x) {
  x = AtLeast(-kGeluLimit, x);
  const V inner = AtMost(kGeluLimit, x);
  const V minus_z = hn::Mul(inner, hn::MulAdd(hn::Mul(inner, inner), Set(-kCubic), Set(-kLinear)));
  return hn::Mul(x, Reciprocal(hn::Add(Set(1.0f), ExpInRange(minus_z))));
}

HWY_INLINE V GeluDerivative(V x) {
  x = AtMost(kGeluLimit, AtLeast(-kGeluLimit, x));
  const V x2 = hn::Mul(x, x);
  const V minus_z = hn::Mul(x, hn::MulAdd(x2, Set(-kCubic), Set(-kLinear)));
  const V dz = hn::MulAdd(x2, Set(3 * kCubic), Set(kLinear));
  const V e = ExpInRange(minus_z);
  const V s = Reciprocal(hn::Add(Set(1.0f), e));
  return hn::MulAdd(hn::Mul(hn::Mul(x, s), hn::Mul(e, s)), dz, s);  // s + x s (1 - s) dz
}

template <class T>
void GeluForwardRange(const GeluForwardArgs& args, int64_t begin, int64_t end) {
  const T* x = args.x.as<T>() + begin;
  T* y = args.y.as<T>() + begin;
  ForEachVectorInStep(
      end - begin,
      [&](int64_t i, auto part) SIMD_LAMBDA {
        FetchAhead(x + i);
        FetchAhead(y + i);
        return Gelu(Load(x + i, part));
      },
      [&](int64_t i, V value, auto part) SIMD_LAMBDA { Store(value, y + i, part); });
}

template <class T>
void GeluBackwardRange(const GeluBackwardArgs& args, int64_t begin, int64_t end) {
  const T* x = args.x.as<T>() + begin;
  const T* dy = args.dy.as<T>() + begin;
  T* dx = args.dx.as<T>() + begin;
  ForEachVectorInStep(
      end - begin,
      [&](int64_t i, auto part) SIMD_LAMBDA {
        FetchAhead(x + i);
        FetchAhead(dy + i);
        FetchAhead(dx + i);
        return hn::Mul(Load(dy + i, part), GeluDerivative(Load(x + i, part)));
      },
      [&](int64_t i, V value, auto part) SIMD_LAMBDA { Store(value, dx + i, part); });
}

template <class T>
void SwigluForwardRow(const SwigluForwardArgs& args, int64_t row) {
  const int64_t width = args.y.columns();
  const T* gates = args.gate_up.as<T>() + row * 2 * width;
  const T* ups = gates + width;
  T* y = args.y.as<T>() + row * width;
  ForEachVectorInStep(
      width,
      [&](int64_t i, auto part) SIMD_LAMBDA {
        FetchAhead(gates + i);
        FetchAhead(ups + i);
        FetchAhead(y + i);
        const V gate = AtLeast(-kSiluLimit, Load(gates + i, part));
        const V e = ExpInRange(hn::Neg(AtMost(kSiluLimit, gate)));
        return hn::Mul(hn::Mul(gate, Reciprocal(hn::Add(Set(1.0f), e))), Load(ups + i, part));
      },
      [&](int64_t i, V value, auto part) SIMD_LAMBDA { Store(value, y + i, part); });
}

struct SwigluGradients {
  V gate;
  V up;
};

template <class T>
void SwigluBackwardRow(const SwigluBackwardArgs& args, int64_t row) {
  const int64_t width = args.dy.columns();
  const T* gates = args.gate_up.as<T>() + row * 2 * width;
  const T* ups = gates + width;
  const T* dys = args.dy.as<T>() + row * width;
  T* dgates = args.dgate_up.as<T>() + row * 2 * width;
  T* dups = dgates + width;
  ForEachVectorInStep(
      width,
      [&](int64_t i, auto part) SIMD_LAMBDA {
        FetchAhead(gates + i);
        FetchAhead(ups + i);
        FetchAhead(dys + i);
        FetchAhead(dgates + i);
        FetchAhead(dups + i);
        const V gate = AtLeast(-kSiluLimit, Load(gates + i, part));
        const V inner = AtMost(kSiluLimit, gate);
        const V e = ExpInRange(hn::Neg(inner));
        const V s = Reciprocal(hn::Add(Set(1.0f), e));
        const V derivative = hn::MulAdd(hn::Mul(inner, s), hn::Mul(e, s), s);  // s + gate s (1 - s)
        const V dy = Load(dys + i, part);
        return SwigluGradients{hn::Mul(hn::Mul(dy, Load(ups + i, part)), derivative), hn::Mul(dy, hn::Mul(gate, s))};
      },
      [&](int64_t i, const SwigluGradients& gradients, auto part) SIMD_LAMBDA {
        Store(gradients.gate, dgates + i, part);
        Store(gradients.up, dups + i, part);
      });
}

void GeluForwardElements(const GeluForwardArgs& args, int64_t begin, int64_t end) {
  (args.x.dtype == DType::kBF16 ? GeluForwardRange<BFloat16> : GeluForwardRange<float>)(args, begin, end);
}

void GeluBackwardElements(const GeluBackwardArgs& args, int64_t begin, int64_t end) {
  (args.x.dtype == DType::kBF16 ? GeluBackwardRange<BFloat16> : GeluBackwardRange<float>)(args, begin, end);
}

void SwigluForwardRows(const SwigluForwardArgs& args, int64_t begin, int64_t end) {
  const auto row_function = args.y.dtype == DType::kBF16 ? SwigluForwardRow<BFloat16> : SwigluForwardRow<float>;
  for (int64_t row = begin; row < end; ++row) row_function(args, row);
}

void SwigluBackwardRows(const SwigluBackwardArgs& args, int64_t begin, int64_t end) {
  const auto row_function = args.dy.dtype == DType::kBF16 ? SwigluBackwardRow<BFloat16> : SwigluBackwardRow<float>;
  for (int64_t row = begin; row < end; ++row) row_function(args, row);
}

}  // namespace
}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::cpu {

HWY_EXPORT(GeluForwardElements);
HWY_EXPORT(GeluBackwardElements);
HWY_EXPORT(SwigluForwardRows);
HWY_EXPORT(SwigluBackwardRows);

void GeluForward(Team& team, const GeluForwardArgs& args) {
  CheckArguments(args);
  ForEachBlock(team, args.x.elements(), kBlockElements, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(GeluForwardElements)(args, begin, end);
  });
}

void GeluBackward(Team& team, const GeluBackwardArgs& args) {
  CheckArguments(args);
  ForEachBlock(team, args.x.elements(), kBlockElements, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(GeluBackwardElements)(args, begin, end);
  });
}

void SwigluForward(Team& team, const SwigluForwardArgs& args) {
  const int64_t rows = args.y.rows(), width = args.y.columns();
  CheckArguments(args);
  ForEachRowBlock(team, rows, width, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(SwigluForwardRows)(args, begin, end);
  });
}

void SwigluBackward(Team& team, const SwigluBackwardArgs& args) {
  const int64_t rows = args.dy.rows(), width = args.dy.columns();
  CheckArguments(args);
  ForEachRowBlock(team, rows, width, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(SwigluBackwardRows)(args, begin, end);
  });
}

}  // namespace sluice::cpu
#endif  // HWY_ONCE
