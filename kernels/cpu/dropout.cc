#include "kernels/cpu/dropout.h"

#include <cmath>

#include "base/philox.h"
#include "kernels/cpu/simd_targets.h"
#include "kernels/cpu/work_split.h"
#include "kernels/operation_check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/dropout.cc"
#include "hwy/foreach_target.h"
// In this order.
#include "kernels/cpu/philox-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {
namespace {

// Elements [begin, end) of one sample, which lie `offset` behind the beginning of x.
template <class T>
void DropoutRange(const DropoutArgs& args, int64_t sample, int64_t begin, int64_t end, int64_t offset) {
  const T* x = args.x.as<T>() + offset;
  const T* add = args.add ? args.add.as<T>() + offset : nullptr;
  T* y = args.y.as<T>() + offset;
  const uint32_t sample_index = static_cast<uint32_t>(args.samples.as<int32_t>()[sample]);
  const uint64_t key = MixBits(args.key.seed ^ MixBits(args.key.name));
  // UnitFloat(word) >= rate in integers: both sides times 2^24, which is exact.
  const auto threshold = hn::Set(I32Tag(), static_cast<int32_t>(std::ceil(std::ldexp(double{args.rate}, 24))));
  const V scale = Set(1.0f / (1.0f - args.rate));

  const int64_t chunk = 4 * QuadsAtOnce();
  alignas(64) uint32_t words[5 * kMaxLanes];  // a vector may be loaded from behind the first ones of a quad
  for (int64_t quads = begin / 4 * 4; quads < end; quads += chunk) {
    RandomQuads(key, args.key.step, sample_index, static_cast<uint64_t>(quads) / 4, words);
    const int64_t first = std::max(begin, quads), start = first - begin, skipped = first - quads;
    ForEachVector(std::min(end, quads + chunk) - first, [&](int64_t i, auto part) SIMD_LAMBDA {
      const auto bits = hn::ShiftRight<8>(hn::LoadU(U32Tag(), words + skipped + i));
      const auto drop = hn::RebindMask(F32Tag(), hn::Lt(hn::BitCast(I32Tag(), bits), threshold));
      const V kept = hn::IfThenZeroElse(drop, hn::Mul(Load(x + start + i, part), scale));
      const V result = add == nullptr ? kept : hn::Add(Load(add + start + i, part), kept);
      Store(result, y + start + i, part);
    });
  }
}

void DropoutElements(const DropoutArgs& args, int64_t sample, int64_t begin, int64_t end, int64_t offset) {
  (args.x.dtype == DType::kBF16 ? DropoutRange<BFloat16> : DropoutRange<float>)(args, sample, begin, end, offset);
}

}  // namespace
}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::cpu {

HWY_EXPORT(DropoutElements);

void Dropout(Team& team, const DropoutArgs& args) {
  CheckArguments(args);
  const int64_t samples = args.samples.elements(), columns = args.x.columns();
  const int64_t elements = SequenceOf(args) * columns, blocks_per_sample = (elements + kBlockElements - 1) / kBlockElements;
  const int64_t first = args.first_token * columns, last = first + args.x.elements();
  team.ParallelFor(samples * blocks_per_sample, [&](int64_t block) {
    const int64_t sample = block / blocks_per_sample, block_begin = block % blocks_per_sample * kBlockElements;
    const int64_t begin = std::max(block_begin, first - sample * elements);
    const int64_t end = std::min({elements, block_begin + kBlockElements, last - sample * elements});
    if (begin >= end) return;
    HWY_DYNAMIC_DISPATCH(DropoutElements)(args, sample, begin, end, sample * elements + begin - first);
  });
}

}  // namespace sluice::cpu
#endif  // HWY_ONCE
