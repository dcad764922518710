// A tensor in host memory for tests of the CPU's operations: random or poisoned, and readable as doubles.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "base/philox.h"
#include "kernels/tensor.h"

namespace sluice {

class HostTensor {
 public:
  // Filled with NaNs: what an operation fails to write shows.
  HostTensor(Shape shape, DType type)
      : bytes_(shape.elements() * SizeOf(type)),
        data_(std::make_unique<Line[]>(bytes_ / 64 + 1)),
        view_{data(), type, shape} {
    std::memset(data(), 0xff, bytes_);
  }
  // Uniform in [-1, 1), rounded to the type.
  static HostTensor Random(Shape shape, DType type, uint64_t seed, float scale = 1.0f) {
    HostTensor result(shape, type);
    for (int64_t i = 0; i < shape.elements(); ++i) {
      const uint32_t word = Philox({static_cast<uint32_t>(i), 0, 0, 0}, seed)[0];
      result.Set(i, scale * (2.0f * UnitFloat(word) - 1.0f));
    }
    return result;
  }
  static HostTensor Of(Shape shape, const std::vector<int32_t>& values) {
    HostTensor result(shape, DType::kI32);
    std::memcpy(result.data(), values.data(), result.bytes_);
    return result;
  }
  HostTensor Clone() const {
    HostTensor result(view_.shape, view_.dtype);
    std::memcpy(result.data(), data(), bytes_);
    return result;
  }

  const TensorView& view() const { return view_; }
  operator TensorView() const { return view_; }
  void Set(int64_t i, float value) {
    if (view_.dtype == DType::kBF16) {
      view_.as<BFloat16>()[i] = ToBFloat16(value);
    } else {
      view_.as<float>()[i] = value;
    }
  }
  std::vector<double> Doubles() const {
    std::vector<double> result(view_.elements());
    for (size_t i = 0; i < result.size(); ++i) {
      result[i] = view_.dtype == DType::kBF16 ? ToFloat(view_.as<BFloat16>()[i]) : view_.as<float>()[i];
    }
    return result;
  }
  // The bytes, for comparing results bit by bit.
  std::vector<std::byte> Bits() const { return {data(), data() + bytes_}; }

 private:
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  std::byte* data() const { return data_[0].bytes; }

  int64_t bytes_;
  std::unique_ptr<Line[]> data_;
  TensorView view_;
};

// What f32 arithmetic may lose in a sum of n terms whose absolute values add up to about `magnitude`; the terms' signs
// vary, so errors grow with the root of n (4 covers the spread over many elements). A bf16 result is rounded to 8 bits.
inline double SumTolerance(int64_t n, double magnitude, DType result) {
  const double f32 = 4 * std::numeric_limits<float>::epsilon() * std::sqrt(static_cast<double>(n)) * magnitude;
  return result == DType::kBF16 ? f32 + magnitude * 0x1p-9 : f32;
}

}  // namespace sluice
