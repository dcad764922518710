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
// Whether the library would multiply bf16 on matrix registers (Intel AMX).
bool HasTiles();

// How a right-hand matrix lies in memory.
enum class RightLayout : uint8_t {
  kLibrary,     // as the library likes it best
  kRowMajor,    // one row of `columns` after the other ...
  kColumnMajor  // ... or one column of `depth`
};

// The right-hand matrix of a product, [depth, columns] of one element type.
// The layout depends on nothing else, so it serves any number of rows.
struct RightMatrix {
  int64_t depth = 0;
  int64_t columns = 0;
  DType type = DType::kF32;
  RightLayout layout = RightLayout::kLibrary;
  friend bool operator==(const RightMatrix&, const RightMatrix&) = default;
};
int64_t PackedBytes(const RightMatrix& matrix);
// packed = element (d, c) at source[d * depth_stride + c * column_stride], rounded to the type; one of the strides
// is 1.
struct SourceStrides {
  int64_t depth = 0;
  int64_t column = 0;
};
void Pack(const RightMatrix& matrix, const float* source, SourceStrides strides, std::byte* packed);
// The same from a source of another type.
void Pack(const RightMatrix& matrix, const void* source, DType source_type, SourceStrides strides, std::byte* packed);

enum class Result : uint8_t { kWrite, kAddTo };

// y[rows, columns] = x[rows, depth] . right (+ bias) (+ y before). Fast only where the rows of x and y follow one
// another without gaps: with a layout of its own and gaps the library falls back to its reference loops, a thousand
// times slower.
struct RightProduct {
  RightMatrix right;
  int64_t rows = 0;
  int64_t x_stride = 0;  // elements between rows
  int64_t y_stride = 0;
  DType y_type = DType::kF32;
  bool has_bias = false;  // f32 [columns]
  Result result = Result::kWrite;
  friend bool operator==(const RightProduct&, const RightProduct&) = default;
};
// The library's name of what computes it, e.g. "brg:avx512_core"; "ref:any" are the reference loops.
std::string ImplementationOf(const RightProduct& product);
void Multiply(const RightProduct& product, const void* x, const void* right, const float* bias, void* y);

// y[rows, columns] f32 = a^T . b (+ y before), with a[depth, rows] and b[depth, columns] of one type; b_stride is that of
// a row-major b.
struct TransposedProduct {
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t depth = 0;
  int64_t a_stride = 0;
  int64_t b_stride = 0;
  int64_t y_stride = 0;
  DType type = DType::kF32;
  Result result = Result::kWrite;
  RightLayout b_layout = RightLayout::kRowMajor;  // not kColumnMajor
  friend bool operator==(const TransposedProduct&, const TransposedProduct&) = default;
};
std::string ImplementationOf(const TransposedProduct& product);
void Multiply(const TransposedProduct& product, const void* a, const void* b, float* y);

}  // namespace sluice::cpu
