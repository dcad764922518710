// What an operation demands of its tensors: a broken demand is a broken invariant of the caller.
#pragma once

#include "base/check.h"
#include "kernels/tensor.h"

namespace sluice {

inline void CheckCompute(const char* name, const TensorView& view) {
  CHECK(view) << name << " is absent";
  CHECK(view.dtype == DType::kF32 || view.dtype == DType::kBF16) << name << " is " << Name(view.dtype);
}

inline void CheckVector(const char* name, const TensorView& view, int64_t elements, DType dtype) {
  CHECK(view) << name << " is absent";
  CHECK(view.dtype == dtype) << name << " is " << Name(view.dtype) << ", wanted " << Name(dtype);
  CHECK_EQ(view.elements(), elements) << name << " " << view.shape.ToString();
}

inline void CheckMatrix(const char* name, const TensorView& view, int64_t rows, int64_t columns, DType dtype) {
  CheckVector(name, view, rows * columns, dtype);
  CHECK_EQ(view.columns(), columns) << name << " " << view.shape.ToString();
}

}  // namespace sluice
