// Shape, and TensorView: a typed, contiguous, row-major window on device memory. A view is a small value that owns nothing; a
// view without data stands for an optional tensor that is absent.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "base/check.h"
#include "kernels/dtype.h"

namespace sluice {

class Shape {
 public:
  static constexpr int kMaxRank = 4;
  constexpr Shape() = default;
  Shape(std::initializer_list<int64_t> dims) {
    CHECK_LE(dims.size(), static_cast<size_t>(kMaxRank));
    for (int64_t dim : dims) dims_[rank_++] = dim;
  }
  int rank() const { return rank_; }
  int64_t operator[](int axis) const { return dims_[axis]; }
  int64_t last() const { return rank_ == 0 ? 1 : dims_[rank_ - 1]; }
  int64_t elements() const {
    int64_t product = 1;
    for (int axis = 0; axis < rank_; ++axis) product *= dims_[axis];
    return product;
  }
  friend bool operator==(const Shape&, const Shape&) = default;
  std::string ToString() const {  // "[8, 256]"
    std::string text = "[";
    for (int axis = 0; axis < rank_; ++axis) text += (axis ? ", " : "") + std::to_string(dims_[axis]);
    return text + "]";
  }

 private:
  std::array<int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

struct TensorView {
  std::byte* data = nullptr;
  DType dtype = DType::kF32;
  Shape shape;

  explicit operator bool() const { return data != nullptr; }
  int64_t elements() const { return shape.elements(); }
  int64_t bytes() const { return elements() * SizeOf(dtype); }
  // The tensor as a matrix: the last axis are its columns, all others its rows.
  int64_t columns() const { return shape.last(); }
  int64_t rows() const { return columns() == 0 ? 0 : elements() / columns(); }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data);
  }
};

}  // namespace sluice
