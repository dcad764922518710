#include "kernels/cpu/optimizer.h"

#include <algorithm>
#include <cmath>

#include "kernels/adamw.h"
#include "kernels/cpu/simd_targets.h"
#include "kernels/cpu/work_split.h"
#include "kernels/operation_check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/optimizer.cc"
#include "hwy/foreach_target.h"
// In this order.
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {
namespace {

float SumOfSquares(const float* x, int64_t n) {
  return SumOverRow(n, [&](int64_t i, auto part) SIMD_LAMBDA {
    FetchAhead(x + i);
    const V value = Load(x + i, part);
    return hn::Mul(value, value);
  });
}

void AdamWElements(const AdamWArgs& args, float gradient_scale, int64_t begin, int64_t end) {
  float* parameter = args.parameter.as<float>() + begin;
  const float* gradient = args.gradient.as<float>() + begin;
  float* m = args.m.as<float>() + begin;
  float* v = args.v.as<float>() + begin;
  const AdamWFactors f = FactorsOf(args);
  const V scale = Set(gradient_scale), decay = Set(f.decay), m_rate = Set(f.m_rate), v_keep = Set(f.v_keep);
  const V v_rate = Set(f.v_rate), negative_step = Set(f.negative_step), root_scale = Set(f.root_scale);
  const V epsilon = Set(f.epsilon);
  ForEachVector(end - begin, [&](int64_t i, auto part) SIMD_LAMBDA {
    FetchAhead(parameter + i);
    FetchAhead(gradient + i);
    FetchAhead(m + i);
    FetchAhead(v + i);
    const V g = hn::Mul(Load(gradient + i, part), scale);
    const V old_m = Load(m + i, part);
    const V new_m = hn::MulAdd(hn::Sub(g, old_m), m_rate, old_m);
    const V new_v = hn::MulAdd(hn::Mul(g, g), v_rate, hn::Mul(Load(v + i, part), v_keep));
    const V denominator = hn::MulAdd(hn::Sqrt(new_v), root_scale, epsilon);
    const V decayed = hn::Mul(Load(parameter + i, part), decay);
    Store(new_m, m + i, part);
    Store(new_v, v + i, part);
    Store(hn::MulAdd(hn::Div(new_m, denominator), negative_step, decayed), parameter + i, part);
  });
}

}  // namespace
}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::cpu {

HWY_EXPORT(SumOfSquares);
HWY_EXPORT(AdamWElements);

void SquaredNorm(Team& team, TensorView gradient, TensorView partials) {
  CheckSquaredNorm(gradient, partials);
  ForEachBlock(team, gradient.elements(), kNormBlock, [&](int64_t begin, int64_t end) {
    partials.as<float>()[begin / kNormBlock] =
        HWY_DYNAMIC_DISPATCH(SumOfSquares)(gradient.as<float>() + begin, end - begin);
  });
}

void DecideStep(Team&, TensorView partials, float max_norm, TensorView control) {
  CheckDecideStep(partials, control);
  double square = 0;
  for (int64_t i = 0; i < partials.elements(); ++i) square += partials.as<float>()[i];
  const double norm = std::sqrt(square);
  StepControl decision{.norm = static_cast<float>(norm)};
  if (!std::isfinite(norm)) {
    decision.skip = 1;
    decision.scale = 0;
  } else if (max_norm > 0) {
    decision.scale = static_cast<float>(std::min(1.0, max_norm / (norm + 1e-6)));
  }
  *control.as<StepControl>() = decision;
}

void GuessStep(Team&, TensorView control, TensorView guess) {
  CheckGuessStep(control, guess);
  StepControl decision = *control.as<StepControl>();
  if (decision.scale < 1) decision.skip = 1;
  *guess.as<StepControl>() = decision;
}

void AdamW(Team& team, const AdamWArgs& args) {
  const int64_t elements = args.parameter.elements();
  CheckArguments(args);
  const StepControl control = *args.control.as<StepControl>();
  if (control.skip != 0) return;
  ForEachBlock(team, elements, kBlockElements, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(AdamWElements)(args, control.scale, begin, end);
  });
}

}  // namespace sluice::cpu
#endif  // HWY_ONCE
