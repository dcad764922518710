#include "kernels/cpu/random_init.h"

#include "base/philox.h"
#include "kernels/cpu/simd_targets.h"
#include "kernels/cpu/work_split.h"
#include "kernels/operation_check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/random_init.cc"
#include "hwy/foreach_target.h"
// In this order.
#include "hwy/contrib/math/math-inl.h"
#include "kernels/cpu/philox-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {
namespace {

constexpr double kTwoPi = 6.28318530717958647693;

// Turns words in place-order (w0, w1), (w2, w3), ... into as many normal values.
void BoxMuller(const uint32_t* words, int64_t count, double deviation, float* values) {
  const hn::Repartition<double, F32Tag> f64;
  const int64_t wide = static_cast<int64_t>(hn::Lanes(f64));
  constexpr int64_t kMaxPairs = 2 * kMaxLanes;
  alignas(64) double radii[kMaxPairs], angles[kMaxPairs], sines[kMaxPairs];
  for (int64_t p = 0; p < count / 2; ++p) {
    radii[p] = 1.0 - UnitFloat(words[2 * p]);
    angles[p] = kTwoPi * UnitFloat(words[2 * p + 1]);
  }
  for (int64_t p = 0; p < count / 2; p += wide) {
    const auto logarithm = hn::Log(f64, hn::Load(f64, radii + p));
    const auto radius = hn::Mul(hn::Sqrt(hn::Mul(logarithm, hn::Set(f64, -2.0))), hn::Set(f64, deviation));
    const auto angle = hn::Load(f64, angles + p);
    hn::Store(hn::Mul(radius, hn::Cos(f64, angle)), f64, radii + p);
    hn::Store(hn::Mul(radius, hn::Sin(f64, angle)), f64, sines + p);
  }
  for (int64_t p = 0; p < count / 2; ++p) {
    values[2 * p] = static_cast<float>(radii[p]);
    values[2 * p + 1] = static_cast<float>(sines[p]);
  }
}

// Elements [begin, end) of the unsplit tensor.
void InitNormalElements(const RandomKey& key, double deviation, float* target, int64_t begin, int64_t end) {
  const uint64_t mixed = MixBits(key.seed ^ MixBits(key.name));
  const int64_t chunk = 4 * QuadsAtOnce();
  alignas(64) uint32_t words[4 * kMaxLanes];
  float values[4 * kMaxLanes];
  for (int64_t start = begin / 4 * 4; start < end; start += chunk) {
    RandomQuads(mixed, key.step, 0, static_cast<uint64_t>(start) / 4, words);
    BoxMuller(words, chunk, deviation, values);
    const int64_t from = std::max(begin, start), to = std::min(end, start + chunk);
    std::memcpy(target + from - begin, values + from - start, static_cast<size_t>(to - from) * sizeof(float));
  }
}

}  // namespace
}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::cpu {

HWY_EXPORT(InitNormalElements);

void InitNormal(Team& team, const InitNormalArgs& args) {
  CheckArguments(args);
  const bool whole_rows = args.stride == 0 || args.stride == args.target.columns();
  const int64_t rows = whole_rows ? 1 : args.target.rows(),
                columns = args.target.elements() / std::max<int64_t>(1, rows);
  const int64_t blocks_per_row = (columns + kBlockElements - 1) / kBlockElements;
  team.ParallelFor(rows * blocks_per_row, [&](int64_t block) {
    const int64_t row = block / blocks_per_row, begin = block % blocks_per_row * kBlockElements;
    const int64_t end = std::min(columns, begin + kBlockElements), first = args.first + row * args.stride;
    HWY_DYNAMIC_DISPATCH(InitNormalElements)
    (args.key, args.deviation, args.target.as<float>() + row * columns + begin, first + begin, first + end);
  });
}

}  // namespace sluice::cpu
#endif  // HWY_ONCE
