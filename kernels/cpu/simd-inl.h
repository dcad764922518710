// Vectors of f32 for the Highway kernels: loading and storing f32 or bf16, ends of rows that don't fill a vector, sums
// over rows. Compiled once per instruction set (see Highway's foreach_target.h), hence the unusual include guard.
//
// An element's result never depends on where it lies: the last, partial vector goes through the same instructions as
// whole ones, on a zero-padded copy. (The build forbids contracting a * b + c into one rounding behind our back.)

#include <cstdint>
#include <cstring>

#include "kernels/cpu/simd_targets.h"
// In this order.
#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "kernels/dtype.h"

#if defined(SLUICE_KERNELS_CPU_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SLUICE_KERNELS_CPU_SIMD_INL_H_
#undef SLUICE_KERNELS_CPU_SIMD_INL_H_
#else
#define SLUICE_KERNELS_CPU_SIMD_INL_H_
#endif

// After the parameters of a lambda that handles vectors.
#ifndef SIMD_LAMBDA
#define SIMD_LAMBDA HWY_ATTR __attribute__((always_inline))
#endif

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using F32Tag = hn::ScalableTag<float>;
using U32Tag = hn::RebindToUnsigned<F32Tag>;
using I32Tag = hn::RebindToSigned<F32Tag>;
using U16Tag = hn::Rebind<uint16_t, F32Tag>;
using V = hn::Vec<F32Tag>;
using M = hn::Mask<F32Tag>;
constexpr int64_t kMaxLanes = HWY_MAX_BYTES / sizeof(float);

HWY_INLINE int64_t Lanes() { return static_cast<int64_t>(hn::Lanes(F32Tag())); }
HWY_INLINE V Set(float value) { return hn::Set(F32Tag(), value); }

// How much of a vector an access covers.
struct Whole {};
struct Part {
  int64_t count;  // 1 ... Lanes() - 1
};

HWY_INLINE V Load(const float* p, Whole) { return hn::LoadU(F32Tag(), p); }
HWY_INLINE V Load(const BFloat16* p, Whole) {
  const auto bits = hn::PromoteTo(U32Tag(), hn::LoadU(U16Tag(), reinterpret_cast<const uint16_t*>(p)));
  return hn::BitCast(F32Tag(), hn::ShiftLeft<16>(bits));
}

HWY_INLINE void Store(V v, float* p, Whole) { hn::StoreU(v, F32Tag(), p); }
// Rounds like ToBFloat16(). A NaN is only cut off: as the result of arithmetic it is quiet, so one of its upper bits is
// set.
HWY_INLINE void Store(V v, BFloat16* p, Whole) {
  const U32Tag u32;
  const auto bits = hn::BitCast(u32, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(u32, 1));
  const auto half = hn::BitCast(F32Tag(), hn::Add(odd, hn::Set(u32, 0x7fff)));
  const auto rounding = hn::BitCast(u32, hn::IfThenElseZero(hn::Eq(v, v), half));
  const auto result = hn::BitCast(I32Tag(), hn::ShiftRight<16>(hn::Add(bits, rounding)));
  hn::StoreU(hn::DemoteTo(U16Tag(), result), U16Tag(), reinterpret_cast<uint16_t*>(p));
}

// Lanes beyond the part are zero.
template <class T>
HWY_INLINE V Load(const T* p, Part part) {
  T padded[kMaxLanes] = {};
  std::memcpy(padded, p, part.count * sizeof(T));
  return Load(padded, Whole());
}
template <class T>
HWY_INLINE void Store(V v, T* p, Part part) {
  T padded[kMaxLanes];
  Store(v, padded, Whole());
  std::memcpy(p, padded, part.count * sizeof(T));
}

// Past the caches, where the address allows it. hwy::FlushStream() makes it visible to other threads.
HWY_INLINE void StoreAround(V v, float* p, Whole) {
  if (reinterpret_cast<uintptr_t>(p) % (kMaxLanes * sizeof(float)) == 0) {
    hn::Stream(v, F32Tag(), p);
  } else {
    Store(v, p, Whole());
  }
}
HWY_INLINE void StoreAround(V v, float* p, Part part) { Store(v, p, part); }

// What lies some hundred nanoseconds ahead of p in a stream, on its way. The processor's own prefetching ends at each
// page, and hardly covers lines that are only written.
HWY_INLINE void FetchAhead(const void* p) { __builtin_prefetch(static_cast<const char*>(p) + 2048); }

// Zeroes the lanes beyond the part.
HWY_INLINE V Keep(V v, Whole) { return v; }
HWY_INLINE V Keep(V v, Part part) {
  return hn::IfThenElseZero(hn::FirstN(F32Tag(), static_cast<size_t>(part.count)), v);
}

// Calls body(i, Whole or Part) for the vectors of n elements.
template <class Body>
HWY_INLINE void ForEachVector(int64_t n, Body body) {
  const int64_t lanes = Lanes();
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) body(i, Whole());
  if (i < n) body(i, Part{n - i});
}

// Calls store(i, value(i, part), part) for the vectors of n elements. Four at a time: where a value is a long chain of
// operations, the compiler can interleave them (-fschedule-insns), since values are made before any is stored.
template <class Value, class StoreValue>
HWY_INLINE void ForEachVectorInStep(int64_t n, Value value, StoreValue store) {
  const int64_t lanes = Lanes();
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    const auto value0 = value(i, Whole()), value1 = value(i + lanes, Whole());
    const auto value2 = value(i + 2 * lanes, Whole()), value3 = value(i + 3 * lanes, Whole());
    store(i, value0, Whole());
    store(i + lanes, value1, Whole());
    store(i + 2 * lanes, value2, Whole());
    store(i + 3 * lanes, value3, Whole());
  }
  for (; i + lanes <= n; i += lanes) store(i, value(i, Whole()), Whole());
  if (i < n) store(i, value(i, Part{n - i}), Part{n - i});
}

HWY_INLINE float SumOfLanes(V v) { return hn::GetLane(hn::SumOfLanes(F32Tag(), v)); }

// Sum of the vectors term(i, Whole or Part) over n elements, in four interleaved chains.
template <class Term>
HWY_INLINE float SumOverRow(int64_t n, Term term) {
  const int64_t lanes = Lanes();
  V sum0 = Set(0), sum1 = Set(0), sum2 = Set(0), sum3 = Set(0);
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    sum0 = hn::Add(sum0, term(i, Whole()));
    sum1 = hn::Add(sum1, term(i + lanes, Whole()));
    sum2 = hn::Add(sum2, term(i + 2 * lanes, Whole()));
    sum3 = hn::Add(sum3, term(i + 3 * lanes, Whole()));
  }
  for (; i + lanes <= n; i += lanes) sum0 = hn::Add(sum0, term(i, Whole()));
  if (i < n) {
    const Part part{n - i};
    sum1 = hn::Add(sum1, Keep(term(i, part), part));
  }
  return SumOfLanes(hn::Add(hn::Add(sum0, sum1), hn::Add(sum2, sum3)));
}

}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
