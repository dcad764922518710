// Tensors in host memory for the tests of operations: own their memory, begin as NaN so that a result nobody wrote is
// seen, and compare with double-precision references. Also finite differences.
#pragma once

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <ostream>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/tensor.h"

namespace sluice {

using Doubles = std::vector<double>;

class TestTensor {
 public:
  // Full of NaN (i32: of a number that is no index).
  TestTensor(DType dtype, Shape shape) : dtype_(dtype), shape_(shape), bytes_(shape.elements() * SizeOf(dtype)) {
    for (int64_t i = 0; i < elements(); ++i) {
      if (dtype_ == DType::kI32) {
        as<int32_t>()[i] = std::numeric_limits<int32_t>::min();
      } else {
        Set(i, std::nan(""));
      }
    }
  }
  // Rounded to the type.
  TestTensor(DType dtype, Shape shape, const Doubles& values) : TestTensor(dtype, shape) {
    for (int64_t i = 0; i < elements(); ++i) Set(i, values[i]);
  }
  // Normally distributed values, rounded to the type.
  static TestTensor Random(DType dtype, Shape shape, int seed, double deviation = 1.0, double mean = 0.0) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal(mean, deviation);
    TestTensor result(dtype, shape);
    for (int64_t i = 0; i < result.elements(); ++i) result.Set(i, normal(generator));
    return result;
  }
  static TestTensor Integers(const std::vector<int32_t>& values) {
    TestTensor result(DType::kI32, {static_cast<int64_t>(values.size())});
    std::memcpy(result.bytes_.data(), values.data(), result.bytes_.size());
    return result;
  }

  TensorView view() { return {reinterpret_cast<std::byte*>(bytes_.data()), dtype_, shape_}; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int64_t elements() const { return shape_.elements(); }
  double at(int64_t i) const {
    return dtype_ == DType::kBF16  ? ToFloat(as<BFloat16>()[i])
           : dtype_ == DType::kF32 ? as<float>()[i]
                                   : as<int32_t>()[i];
  }
  void Set(int64_t i, double value) {
    if (dtype_ == DType::kBF16) {
      as<BFloat16>()[i] = ToBFloat16(static_cast<float>(value));
    } else {
      as<float>()[i] = static_cast<float>(value);
    }
  }
  Doubles values() const {
    Doubles result(elements());
    for (int64_t i = 0; i < elements(); ++i) result[i] = at(i);
    return result;
  }
  bool SameBits(const TestTensor& other) const { return bytes_ == other.bytes_; }

 private:
  template <class T>
  T* as() {
    return reinterpret_cast<T*>(bytes_.data());
  }
  template <class T>
  const T* as() const {
    return reinterpret_cast<const T*>(bytes_.data());
  }

  DType dtype_;
  Shape shape_;
  std::vector<char> bytes_;
};

// What a result may be off by: |result - reference| <= absolute + relative * |reference|.
struct Tolerance {
  double absolute = 0;
  double relative = 0;
};

// The tolerance of an f32 computation whose result is then rounded to the type: bf16 adds half a unit in the last of 8
// bits.
inline Tolerance Rounded(DType dtype, Tolerance f32) {
  if (dtype == DType::kBF16) f32.relative += 0x1.0p-8 * (1 + 0x1.0p-8);
  return f32;
}

inline void ExpectNear(const TestTensor& result, const Doubles& reference, Tolerance tolerance, const char* name) {
  ASSERT_EQ(result.elements(), static_cast<int64_t>(reference.size())) << name;
  for (int64_t i = 0; i < result.elements(); ++i) {
    const double allowed = tolerance.absolute + tolerance.relative * std::abs(reference[i]);
    ASSERT_LE(std::abs(result.at(i) - reference[i]), allowed)
        << name << "[" << i << "] = " << result.at(i) << ", reference " << reference[i];
    ASSERT_FALSE(std::isnan(result.at(i))) << name << "[" << i << "]";
  }
}

// Gradient of a scalar function by central differences. With h = 1e-5 and values of order 1 the error is of order
// 1e-10.
inline Doubles FiniteDifferences(const std::function<double(const Doubles&)>& function, Doubles x) {
  constexpr double kStep = 1e-5;
  Doubles gradient(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const double center = x[i];
    x[i] = center + kStep;
    const double above = function(x);
    x[i] = center - kStep;
    const double below = function(x);
    x[i] = center;
    gradient[i] = (above - below) / (2 * kStep);
  }
  return gradient;
}

inline double Dot(const Doubles& a, const Doubles& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

inline void ExpectClose(const Doubles& a, const Doubles& b, double tolerance, const char* name) {
  ASSERT_EQ(a.size(), b.size()) << name;
  for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], tolerance) << name << "[" << i << "]";
}

inline Doubles RandomDoubles(size_t count, int seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal;
  Doubles result(count);
  for (double& value : result) value = normal(generator);
  return result;
}

struct MatrixCase {
  int64_t rows;
  int64_t columns;
  DType dtype;
};
inline void PrintTo(const MatrixCase& c, std::ostream* out) {
  *out << Shape{c.rows, c.columns}.ToString() << " " << Name(c.dtype);
}

// Odd shapes, smaller than a vector, no multiple of one, several blocks of rows, a row longer than a block.
inline std::vector<MatrixCase> MatrixCases() {
  std::vector<MatrixCase> cases;
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    for (const auto& [rows, columns] : std::vector<std::pair<int64_t, int64_t>>{{1, 1},
                                                                                {3, 1},
                                                                                {1, 3},
                                                                                {2, 7},
                                                                                {7, 17},
                                                                                {5, 33},
                                                                                {33, 100},
                                                                                {257, 64},
                                                                                {70, 257},
                                                                                {100, 768},
                                                                                {3, 16500}}) {
      cases.push_back({rows, columns, dtype});
    }
  }
  return cases;
}

}  // namespace sluice
