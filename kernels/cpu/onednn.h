// The border to oneDNN (2.6, Debian's build over libgomp): the only file pair that knows the library, so that a newer
// one is a change of one file.
//
// Everything here runs single-threaded on the calling thread, which must be a team's (kernels/cpu/team.h). Primitives
// are made on first use and kept per thread; afterwards a call allocates nothing of ours. Failures of the library
// throw.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/dtype.h"

namespace sluice::cpu {

// What the library uses of this processor: "AVX2", "AVX-512 with AMX and bf16", ...
std::string InstructionSet();
// Whether the library multiplies bf16 matrices faster than f32 ones here. Elsewhere bf16 is emulated exactly, in f32.
bool HasFastBFloat16();

// The right-hand matrix of a product in the library's own layout: [depth, columns], of one element type. The layout
// depends on nothing else, so it serves any number of rows.
struct PackedMatrix {
  int64_t depth = 0;
  int64_t columns = 0;
  DType type = DType::kF32;
  friend bool operator==(const PackedMatrix&, const PackedMatrix&) = default;
};
int64_t PackedBytes(const PackedMatrix& matrix);
// packed = element (d, c) at source[d * depth_stride + c * column_stride], rounded to the type; one of the strides
// is 1.
void Pack(const PackedMatrix& matrix, const float* source, int64_t depth_stride, int64_t column_stride,
          std::byte* packed);

enum class Result : uint8_t { kWrite, kAddTo };

// y[rows, columns] = x[rows, depth] . packed (+ bias) (+ y before)
struct PackedProduct {
  PackedMatrix right;
  int64_t rows = 0;
  int64_t x_stride = 0;  // elements between rows
  int64_t y_stride = 0;
  DType y_type = DType::kF32;
  bool has_bias = false;  // f32 [columns]
  Result result = Result::kWrite;
  friend bool operator==(const PackedProduct&, const PackedProduct&) = default;
};
void Multiply(const PackedProduct& product, const void* x, const std::byte* packed, const float* bias, void* y);

// y[rows, columns] f32 = a^T . b (+ y before), with a[depth, rows] and b[depth, columns] of one type.
struct TransposedProduct {
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t depth = 0;
  int64_t a_stride = 0;
  int64_t b_stride = 0;
  int64_t y_stride = 0;
  DType type = DType::kF32;
  Result result = Result::kWrite;
  friend bool operator==(const TransposedProduct&, const TransposedProduct&) = default;
};
void Multiply(const TransposedProduct& product, const void* a, const void* b, float* y);

}  // namespace sluice::cpu
