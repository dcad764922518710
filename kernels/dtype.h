// Element types of tensors, and bf16 as the upper half of an IEEE float.
#pragma once

#include <bit>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace sluice {

enum class DType : uint8_t { kF32, kBF16, kI32 };

constexpr int64_t SizeOf(DType type) { return type == DType::kBF16 ? 2 : 4; }

inline absl::string_view Name(DType type) {
  switch (type) {
    case DType::kF32: return "f32";
    case DType::kBF16: return "bf16";
    case DType::kI32: return "i32";
  }
  return "?";
}

struct BFloat16 {
  uint16_t bits = 0;
};

constexpr float ToFloat(BFloat16 value) { return std::bit_cast<float>(uint32_t{value.bits} << 16); }

// Rounds to nearest, ties to even; a NaN stays a (quiet) NaN.
constexpr BFloat16 ToBFloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((bits >> 16) | 0x40u)};
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

}  // namespace sluice
