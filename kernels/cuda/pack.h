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

// The first `available` of kWidth elements from p on; the others are 0. `aligned`: p is a multiple of 16 bytes.
template <int kWidth, class T>
__device__ __forceinline__ Pack<kWidth> Load(const T* p, bool aligned, int64_t available = kWidth) {
  Pack<kWidth> pack;
  if constexpr (kWidth >= kPackOf<T>) {
    if (aligned && available >= kWidth) {
#pragma unroll
      for (int i = 0; i < kWidth; i += kPackOf<T>) Unpack(Load128(p + i), p, pack.values + i);
      return pack;
    }
  }
#pragma unroll
  for (int i = 0; i < kWidth; ++i) pack[i] = i < available ? LoadElement(p + i) : 0.0f;
  return pack;
}

// Rounds to the type, to nearest even.
template <int kWidth, class T>
__device__ __forceinline__ void Store(const Pack<kWidth>& pack, T* p, bool aligned, int64_t available = kWidth) {
  if constexpr (kWidth >= kPackOf<T>) {
    if (aligned && available >= kWidth) {
#pragma unroll
      for (int i = 0; i < kWidth; i += kPackOf<T>) Store128(p + i, Bits(pack.values + i, p));
      return;
    }
  }
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    if (i < available) StoreElement(pack[i], p + i);
  }
}

}  // namespace sluice::cuda
