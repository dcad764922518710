#include "kernels/cpu/rope.h"

#include <cmath>

#include "kernels/cpu/simd_targets.h"
#include "kernels/cpu/work_split.h"
#include "kernels/operation_check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rope.cc"
#include "hwy/foreach_target.h"
// In this order.
#include "kernels/cpu/simd_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {
namespace {

using F64Tag = hn::Repartition<double, F32Tag>;
using HalfF32Tag = hn::Half<F32Tag>;

constexpr double kTwoOverPi = 0.63661977236758134308;
constexpr double kPiOverTwo = 1.57079632679489661923;

// Sine and cosine of position * frequencies[i] for whole vectors up to `count`; the arrays have room for that.
void SinCos(double position, const double* frequencies, int64_t count, float* sines, float* cosines) {
  const F64Tag f64;
  const HalfF32Tag half;
  const int64_t lanes = Lanes(), wide = static_cast<int64_t>(hn::Lanes(f64));
  for (int64_t i = 0; i < count; i += lanes) {
    // angle = quarter * pi/2 + rest, both as f32, which hold them exactly enough: quarter modulo 4 is a small integer.
    alignas(64) float quarters[kMaxLanes], rests[kMaxLanes];
    for (int64_t j = 0; j < lanes; j += wide) {
      const auto angle = hn::Mul(hn::Set(f64, position), hn::LoadU(f64, frequencies + i + j));
      const auto turns = hn::Round(hn::Mul(angle, hn::Set(f64, kTwoOverPi)));
      const auto rest = hn::NegMulAdd(turns, hn::Set(f64, kPiOverTwo), angle);
      const auto whole = hn::Mul(hn::Floor(hn::Mul(turns, hn::Set(f64, 0.25))), hn::Set(f64, 4.0));
      hn::StoreU(hn::DemoteTo(half, hn::Sub(turns, whole)), half, quarters + j);
      hn::StoreU(hn::DemoteTo(half, rest), half, rests + j);
    }
    const V quarter = Load(quarters, Whole()), rest = Load(rests, Whole());
    const V sine = SinNearZero(rest), cosine = CosNearZero(rest);
    const M swap = hn::Or(hn::Eq(quarter, Set(1)), hn::Eq(quarter, Set(3)));
    const M sine_negative = hn::Ge(quarter, Set(2));
    const M cosine_negative = hn::Or(hn::Eq(quarter, Set(1)), hn::Eq(quarter, Set(2)));
    const V s = hn::IfThenElse(swap, cosine, sine), c = hn::IfThenElse(swap, sine, cosine);
    Store(hn::IfThenElse(sine_negative, hn::Neg(s), s), sines + i, Whole());
    Store(hn::IfThenElse(cosine_negative, hn::Neg(c), c), cosines + i, Whole());
  }
}

template <class T>
void RotateToken(const RopeArgs& args, const float* sines, const float* cosines, int64_t row) {
  const AttentionShape& shape = args.shape;
  const int64_t half = shape.head_size / 2;
  T* head = args.qkv.as<T>() + row * args.qkv.columns();
  for (int64_t h = 0; h < shape.heads + shape.kv_heads; ++h, head += shape.head_size) {
    ForEachVector(half, [&](int64_t i, auto part) SIMD_LAMBDA {
      const V first = Load(head + i, part), second = Load(head + half + i, part);
      const V sine = Load(sines + i, part), cosine = Load(cosines + i, part);
      Store(hn::NegMulAdd(second, sine, hn::Mul(first, cosine)), head + i, part);
      Store(hn::MulAdd(first, sine, hn::Mul(second, cosine)), head + half + i, part);
    });
  }
}

void RotateTokens(const RopeArgs& args, const double* frequencies, int64_t begin, int64_t end) {
  const auto rotate = args.qkv.dtype == DType::kBF16 ? RotateToken<BFloat16> : RotateToken<float>;
  float sines[kMaxRopeHeadSize / 2 + kMaxLanes], cosines[kMaxRopeHeadSize / 2 + kMaxLanes];
  // The sine of the inverse rotation is that of minus the position.
  const double sign = args.direction == Direction::kInverse ? -1 : 1;
  for (int64_t row = begin; row < end; ++row) {
    SinCos(sign * args.positions.as<int32_t>()[row], frequencies, args.shape.head_size / 2, sines, cosines);
    rotate(args, sines, cosines, row);
  }
}

}  // namespace
}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::cpu {

HWY_EXPORT(RotateTokens);

void Rope(Team& team, const RopeArgs& args) {
  const AttentionShape& shape = args.shape;
  const int64_t rows = shape.rows * shape.sequence, half = shape.head_size / 2;
  CheckArguments(args);
  CHECK_LE(shape.head_size, kMaxRopeHeadSize);

  double frequencies[kMaxRopeHeadSize / 2 + HWY_MAX_BYTES / sizeof(float)] = {};
  for (int64_t i = 0; i < half; ++i) {
    const double frequency = std::pow(double{args.theta}, -static_cast<double>(i) / static_cast<double>(half));
    frequencies[i] = ScaledFrequency(frequency, args.scaling);
  }
  ForEachRowBlock(team, rows, (shape.heads + shape.kv_heads) * shape.head_size, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(RotateTokens)(args, frequencies, begin, end);
  });
}

}  // namespace sluice::cpu
#endif  // HWY_ONCE
