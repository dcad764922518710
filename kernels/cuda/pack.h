// Neighbouring elements of a tensor in registers, as f32: one 16-byte access where the address allows it. Device side.
//
// A row's elements are always cut into packs by its length alone; a badly aligned address only makes their accesses
// smaller. So what a thread adds up, and in which order, doesn't depend on where a tensor lies.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/cuda/simt.h"
#include "kernels/dtype.h"

namespace sluice::cuda {

template <int kWidth>
struct Pack {
  float values[kWidth];
  __device__ __forceinline__ float& operator[](int i) { return values[i]; }
  __device__ __forceinline__ float operator[](int i) const { return values[i]; }
};

// The widest pack of a compute type: 16 bytes.
template <class T>
inline constexpr int kPackOf = 16 / sizeof(T);

__device__ __forceinline__ float LoadElement(const float* p) { return *p; }
__device__ __forceinline__ float LoadElement(const BFloat16* p) { return ToFloat(*p); }
__device__ __forceinline__ void StoreElement(float value, float* p) { *p = value; }
__device__ __forceinline__ void StoreElement(float value, BFloat16* p) {
  *p = {static_cast<uint16_t>(PackBf16x2(value, 0))};
}

__device__ __forceinline__ void Unpack(uint4 bits, const float*, float* values) {
  const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) values[i] = std::bit_cast<float>(words[i]);
}
__device__ __forceinline__ void Unpack(uint4 bits, const BFloat16*, float* values) {
  const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    values[2 * i] = std::bit_cast<float>(words[i] << 16);
    values[2 * i + 1] = std::bit_cast<float>(words[i] & 0xffff0000u);
  }
}
__device__ __forceinline__ uint4 Bits(const float* values, const float*) {
  return {std::bit_cast<uint32_t>(values[0]), std::bit_cast<uint32_t>(values[1]), std::bit_cast<uint32_t>(values[2]),
          std::bit_cast<uint32_t>(values[3])};
}
__device__ __forceinline__ uint4 Bits(const float* values, const BFloat16*) {
  return {PackBf16x2(values[0], values[1]), PackBf16x2(values[2], values[3]), PackBf16x2(values[4], values[5]),
          PackBf16x2(values[6], values[7])};
}

// How a pack is accessed: 16 bytes at once, or the first `available` of its elements one by one. What a thread does
// with all its packs stands behind one branch between the two, so that it can have several loads on their way.
struct Wide {};
struct Narrow {
  int available;
};

template <int kWidth, class T>
__device__ __forceinline__ Pack<kWidth> Load(const T* p, Wide) {
  static_assert(kWidth % kPackOf<T> == 0);
  Pack<kWidth> pack;
#pragma unroll
  for (int i = 0; i < kWidth; i += kPackOf<T>) Unpack(Load128(p + i), p, pack.values + i);
  return pack;
}
// The elements that aren't available are 0.
template <int kWidth, class T>
__device__ __forceinline__ Pack<kWidth> Load(const T* p, Narrow part) {
  Pack<kWidth> pack;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) pack[i] = i < part.available ? LoadElement(p + i) : 0.0f;
  return pack;
}

// Rounds to the type, to nearest even.
template <int kWidth, class T>
__device__ __forceinline__ void Store(const Pack<kWidth>& pack, T* p, Wide) {
  static_assert(kWidth % kPackOf<T> == 0);
#pragma unroll
  for (int i = 0; i < kWidth; i += kPackOf<T>) Store128(p + i, Bits(pack.values + i, p));
}
template <int kWidth, class T>
__device__ __forceinline__ void Store(const Pack<kWidth>& pack, T* p, Narrow part) {
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    if (i < part.available) StoreElement(pack[i], p + i);
  }
}

// Calls body(access) with the access of whole packs. `aligned`: all of their addresses are multiples of 16.
template <int kWidth, class Body>
__device__ __forceinline__ void WithAccess(bool aligned, Body body) {
  if constexpr (kWidth > 1) {
    if (aligned) return body(Wide());
  }
  body(Narrow{kWidth});
}

// That of a pack in memory of one's own, where every pack begins at a multiple of its size.
template <int kWidth>
__device__ __forceinline__ auto OwnAccess() {
  if constexpr (kWidth > 1) {
    return Wide();
  } else {
    return Narrow{1};
  }
}

}  // namespace sluice::cuda
