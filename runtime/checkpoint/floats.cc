// Free of branches, so that the compiler turns the loops into vector instructions.
#include "runtime/checkpoint/floats.h"

#include <bit>
#include <cstring>

namespace sluice {
namespace {

inline uint16_t Load(const std::byte* from, int64_t index) {
  uint16_t half;
  std::memcpy(&half, from + 2 * index, 2);
  return half;
}

}  // namespace

void F16ToF32(const std::byte* from, int64_t count, float* to) {
  constexpr uint32_t kExponentShift = uint32_t{127 - 15} << 23;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t half = Load(from, i);
    const uint32_t magnitude = half & 0x7fff, sign = (half & 0x8000) << 16;
    const uint32_t normal = (magnitude << 13) + kExponentShift;
    // Multiples of 2^-24; by way of an integer, since a subnormal f32 might be flushed to zero.
    const auto subnormal = std::bit_cast<uint32_t>(static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f);
    const uint32_t not_finite = (magnitude << 13) | 0x7f800000u;
    const uint32_t finite = magnitude < 0x0400 ? subnormal : normal;
    to[i] = std::bit_cast<float>(sign | (magnitude < 0x7c00 ? finite : not_finite));
  }
}

void BF16ToF32(const std::byte* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = std::bit_cast<float>(uint32_t{Load(from, i)} << 16);
}

}  // namespace sluice
