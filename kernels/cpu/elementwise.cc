#include "kernels/cpu/elementwise.h"

#include <bit>
#include <cstring>

#include "kernels/cpu/simd_targets.h"
#include "kernels/cpu/work_split.h"
#include "kernels/operation_check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/elementwise.cc"
#include "hwy/foreach_target.h"
// In this order.
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {
namespace {

template <class T>
void AddRange(const AddArgs& args, int64_t begin, int64_t end) {
  const T* a = args.a.as<T>() + begin;
  const T* b = args.b.as<T>() + begin;
  T* y = args.y.as<T>() + begin;
  ForEachVector(end - begin, [&](int64_t i, auto part) SIMD_LAMBDA {
    FetchAhead(a + i);
    FetchAhead(b + i);
    FetchAhead(y + i);
    Store(hn::Add(Load(a + i, part), Load(b + i, part)), y + i, part);
  });
}

void AddElements(const AddArgs& args, int64_t begin, int64_t end) {
  (args.a.dtype == DType::kBF16 ? AddRange<BFloat16> : AddRange<float>)(args, begin, end);
}

template <class T>
void SumRange(absl::Span<const TensorView> parts, T* sum, int64_t begin, int64_t end) {
  ForEachVector(end - begin, [&](int64_t i, auto part) SIMD_LAMBDA {
    FetchAhead(sum + begin + i);
    V total = Load(parts[0].as<T>() + begin + i, part);
    for (size_t p = 1; p < parts.size(); ++p) {
      const T* from = parts[p].as<T>() + begin + i;
      FetchAhead(from);
      total = hn::Add(total, Load(from, part));
    }
    Store(total, sum + begin + i, part);
  });
}

void SumElements(absl::Span<const TensorView> parts, const TensorView& sum, int64_t begin, int64_t end) {
  if (sum.dtype == DType::kBF16) return SumRange(parts, sum.as<BFloat16>(), begin, end);
  SumRange(parts, sum.as<float>(), begin, end);
}

template <class T>
void FillRange(T* target, int64_t count, V value) {
  ForEachVector(count, [&](int64_t i, auto part) SIMD_LAMBDA { Store(value, target + i, part); });
}

// `value` is stored as it is in types of four bytes, and rounded to bf16.
void FillElements(const TensorView& target, float value, int64_t begin, int64_t end) {
  if (target.dtype == DType::kBF16) {
    FillRange(target.as<BFloat16>() + begin, end - begin, Set(value));
  } else {
    FillRange(target.as<float>() + begin, end - begin, Set(value));
  }
}

}  // namespace
}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::cpu {

HWY_EXPORT(AddElements);
HWY_EXPORT(SumElements);
HWY_EXPORT(FillElements);

void Add(Team& team, const AddArgs& args) {
  CheckArguments(args);
  ForEachBlock(team, args.a.elements(), kBlockElements, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(AddElements)(args, begin, end);
  });
}

void SumInOrder(Team& team, absl::Span<const TensorView> parts, TensorView sum) {
  CheckSumInOrder(parts, sum);
  ForEachBlock(team, sum.elements(), kBlockElements, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(SumElements)(parts, sum, begin, end);
  });
}

void Fill(Team& team, TensorView target, float value) {
  CHECK(target) << "target is absent";
  if (target.dtype == DType::kI32) value = std::bit_cast<float>(static_cast<int32_t>(value));
  ForEachBlock(team, target.elements(), kBlockElements, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(FillElements)(target, value, begin, end);
  });
}

void Copy(Team& team, TensorView source, TensorView target) {
  CheckCopy(source, target);
  const int64_t size = SizeOf(source.dtype);
  ForEachBlock(team, source.elements(), kBlockElements, [&](int64_t begin, int64_t end) {
    std::memcpy(target.data + begin * size, source.data + begin * size, static_cast<size_t>((end - begin) * size));
  });
}

}  // namespace sluice::cpu
#endif  // HWY_ONCE
