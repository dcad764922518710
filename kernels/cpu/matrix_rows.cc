#include "kernels/cpu/matrix_rows.h"

#include <algorithm>

#include "kernels/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/matrix_rows.cc"
#include "hwy/foreach_target.h"
// In this order.
#include "kernels/cpu/simd-inl.h"

#ifndef SLUICE_KERNELS_CPU_MATRIX_ROWS_ONCE
#define SLUICE_KERNELS_CPU_MATRIX_ROWS_ONCE
namespace sluice::cpu {
// Rows that are summed before they are added to the total: rounding errors grow with the groups, not with the rows.
constexpr int64_t kRowGroup = 64;
}  // namespace sluice::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {

// Rows of a block may be too short for the processor to see what comes next: those some hundred nanoseconds ahead are
// fetched.
template <class From, class To>
void Convert(Extent extent, Block<const From> from, Block<To> to) {
  const int64_t ahead = 2 + 1024 / extent.columns;
  for (int64_t row = 0; row < extent.rows; ++row, from.data += from.stride, to.data += to.stride) {
    ForEachVector(extent.columns, [&](int64_t i, auto part) SIMD_LAMBDA {
      __builtin_prefetch(from.data + ahead * from.stride + i);
      __builtin_prefetch(to.data + ahead * to.stride + i, 1);
      Store(Load(from.data + i, part), to.data + i, part);
    });
  }
}

void Round(Extent extent, Block<const float> from, Block<float> to) {
  for (int64_t row = 0; row < extent.rows; ++row, from.data += from.stride, to.data += to.stride) {
    ForEachVector(extent.columns, [&](int64_t i, auto part) SIMD_LAMBDA {
      BFloat16 rounded[kMaxLanes];
      Store(Load(from.data + i, part), rounded, Whole());
      Store(Load(rounded, Whole()), to.data + i, part);
    });
  }
}

template <class To>
void AddTwo(Extent extent, Block<const float> a, Block<const BFloat16> b, Block<To> to) {
  for (int64_t row = 0; row < extent.rows; ++row, a.data += a.stride, b.data += b.stride, to.data += to.stride) {
    ForEachVector(extent.columns, [&](int64_t i, auto part) SIMD_LAMBDA {
      Store(hn::Add(Load(a.data + i, part), Load(b.data + i, part)), to.data + i, part);
    });
  }
}

template <class From>
void Sum(Extent extent, Block<const From> from, float* sums) {
  ForEachVector(extent.columns, [&](int64_t i, auto part) SIMD_LAMBDA {
    V total = Set(0);
    for (int64_t begin = 0; begin < extent.rows; begin += kRowGroup) {
      V group = Set(0);
      for (int64_t row = begin; row < std::min(extent.rows, begin + kRowGroup); ++row) {
        group = hn::Add(group, Load(from.data + row * from.stride + i, part));
      }
      total = hn::Add(total, group);
    }
    Store(total, sums + i, part);
  });
}

void ConvertFF(Extent e, Block<const float> from, Block<float> to) { Convert(e, from, to); }
void ConvertFB(Extent e, Block<const float> from, Block<BFloat16> to) { Convert(e, from, to); }
void ConvertBF(Extent e, Block<const BFloat16> from, Block<float> to) { Convert(e, from, to); }
void ConvertBB(Extent e, Block<const BFloat16> from, Block<BFloat16> to) { Convert(e, from, to); }
void AddToB(Extent e, Block<const float> a, Block<const BFloat16> b, Block<BFloat16> to) { AddTwo(e, a, b, to); }
void AddToF(Extent e, Block<const float> a, Block<const BFloat16> b, Block<float> to) { AddTwo(e, a, b, to); }
void SumF(Extent e, Block<const float> from, float* sums) { Sum(e, from, sums); }
void SumB(Extent e, Block<const BFloat16> from, float* sums) { Sum(e, from, sums); }

}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::cpu {

HWY_EXPORT(ConvertFF);
HWY_EXPORT(ConvertFB);
HWY_EXPORT(ConvertBF);
HWY_EXPORT(ConvertBB);
HWY_EXPORT(Round);
HWY_EXPORT(AddToB);
HWY_EXPORT(AddToF);
HWY_EXPORT(SumF);
HWY_EXPORT(SumB);

void ConvertRows(Extent extent, Block<const float> from, Block<float> to) {
  HWY_DYNAMIC_DISPATCH(ConvertFF)(extent, from, to);
}
void ConvertRows(Extent extent, Block<const float> from, Block<BFloat16> to) {
  HWY_DYNAMIC_DISPATCH(ConvertFB)(extent, from, to);
}
void ConvertRows(Extent extent, Block<const BFloat16> from, Block<float> to) {
  HWY_DYNAMIC_DISPATCH(ConvertBF)(extent, from, to);
}
void ConvertRows(Extent extent, Block<const BFloat16> from, Block<BFloat16> to) {
  HWY_DYNAMIC_DISPATCH(ConvertBB)(extent, from, to);
}
void RoundRows(Extent extent, Block<const float> from, Block<float> to) {
  HWY_DYNAMIC_DISPATCH(Round)(extent, from, to);
}
void AddRows(Extent extent, Block<const float> a, Block<const BFloat16> b, Block<BFloat16> to) {
  HWY_DYNAMIC_DISPATCH(AddToB)(extent, a, b, to);
}
void AddRows(Extent extent, Block<const float> a, Block<const BFloat16> b, Block<float> to) {
  HWY_DYNAMIC_DISPATCH(AddToF)(extent, a, b, to);
}
void SumColumns(Extent extent, Block<const float> from, float* sums) { HWY_DYNAMIC_DISPATCH(SumF)(extent, from, sums); }
void SumColumns(Extent extent, Block<const BFloat16> from, float* sums) {
  HWY_DYNAMIC_DISPATCH(SumB)(extent, from, sums);
}

}  // namespace sluice::cpu
#endif  // HWY_ONCE
