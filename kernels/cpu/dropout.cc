#include "kernels/cpu/dropout.h"

#include <cmath>

#include "base/philox.h"
#include "kernels/cpu/simd_targets.h"
#include "kernels/cpu/tensor_check.h"
#include "kernels/cpu/work_split.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/dropout.cc"
#include "hwy/foreach_target.h"
// In this order.
#include "kernels/cpu/philox-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {
namespace {

// Elements [begin, end) of one sample; begin is a multiple of 4.
template <class T>
void DropoutRange(const DropoutArgs& args, int64_t sample, int64_t begin, int64_t end) {
  const int64_t sample_elements = args.x.elements() / args.samples.elements();
  const int64_t offset = sample * sample_elements + begin;
  const T* x = args.x.as<T>() + offset;
  const T* add = args.add ? args.add.as<T>() + offset : nullptr;
  T* y = args.y.as<T>() + offset;
  const uint32_t sample_index = static_cast<uint32_t>(args.samples.as<int32_t>()[sample]);
  const uint64_t key = MixBits(args.key.seed ^ MixBits(args.key.name));
  // UnitFloat(word) >= rate in integers: both sides times 2^24, which is exact.
  const auto threshold = hn::Set(I32Tag(), static_cast<int32_t>(std::ceil(std::ldexp(double{args.rate}, 24))));
  const V scale = Set(1.0f / (1.0f - args.rate));

  const int64_t chunk = 4 * QuadsAtOnce();
  alignas(64) uint32_t words[4 * kMaxLanes];
  for (int64_t start = 0; start < end - begin; start += chunk) {
    RandomQuads(key, args.key.step, sample_index, static_cast<uint64_t>(begin + start) / 4, words);
    const int64_t count = std::min(chunk, end - begin - start);
    ForEachVector(count, [&](int64_t i, auto part) SIMD_LAMBDA {
      const auto bits = hn::ShiftRight<8>(hn::LoadU(U32Tag(), words + i));
      const auto drop = hn::RebindMask(F32Tag(), hn::Lt(hn::BitCast(I32Tag(), bits), threshold));
      const V kept = hn::IfThenZeroElse(drop, hn::Mul(Load(x + start + i, part), scale));
      const V result = add == nullptr ? kept : hn::Add(Load(add + start + i, part), kept);
      Store(result, y + start + i, part);
    });
  }
}

void DropoutElements(const DropoutArgs& args, int64_t sample, int64_t begin, int64_t end) {
  (args.x.dtype == DType::kBF16 ? DropoutRange<BFloat16> : DropoutRange<float>)(args, sample, begin, end);
}

}  // namespace
}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::cpu {

HWY_EXPORT(DropoutElements);

void Dropout(Team& team, const DropoutArgs& args) {
  CHECK(args.rate >= 0.0f && args.rate < 1.0f) << "rate " << args.rate;
  CheckCompute("x", args.x);
  CheckVector("samples", args.samples, args.samples.elements(), DType::kI32);
  const int64_t samples = args.samples.elements();
  CHECK(samples > 0 && args.x.rows() % samples == 0) << samples << " samples in " << args.x.shape.ToString();
  if (args.add) CheckVector("add", args.add, args.x.elements(), args.x.dtype);
  CheckVector("y", args.y, args.x.elements(), args.x.dtype);

  const int64_t elements = args.x.elements() / samples;
  const int64_t blocks_per_sample = (elements + kBlockElements - 1) / kBlockElements;
  team.ParallelFor(samples * blocks_per_sample, [&](int64_t block) {
    const int64_t begin = block % blocks_per_sample * kBlockElements;
    HWY_DYNAMIC_DISPATCH(DropoutElements)
    (args, block / blocks_per_sample, begin, std::min(elements, begin + kBlockElements));
  });
}

}  // namespace sluice::cpu
#endif  // HWY_ONCE
