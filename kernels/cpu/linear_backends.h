// The three ways in which the CPU multiplies with weights. linear.h chooses by element type and instruction set, never
// by timing; tests run all. Tensors were checked by the caller.
//
// All cut the result into fixed blocks, and each block is one thread's, whatever the team.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/matrix_rows.h"
#include "kernels/cpu/team.h"
#include "kernels/operations.h"

namespace sluice::cpu {

// y[M, columns] = x[M, depth] . right (+ bias) (+ add): what forward (right = weight^T, columns = N) and input gradient
// (right = weight, columns = K) have in common.
enum class Use : uint8_t { kForward, kInputGradient };
struct PackedUse {
  LinearShape shape;
  Use use = Use::kForward;
  int64_t columns() const { return use == Use::kForward ? shape.n : shape.k; }
  int64_t depth() const { return use == Use::kForward ? shape.k : shape.n; }
  // Of the element of the weight at (depth, column).
  int64_t depth_stride() const { return use == Use::kForward ? 1 : shape.k; }
  int64_t column_stride() const { return use == Use::kForward ? shape.k : 1; }
};
struct PackedProductArgs {
  PackedUse use;
  TensorView x;
  const std::byte* packed = nullptr;  // of both uses
  const float* bias = nullptr;
  TensorView add;
  TensorView y;
};

struct Range {
  int64_t begin = 0;
  int64_t count = 0;
};
// The bias' gradient, of all rows and outputs; nothing where it isn't wanted.
void BiasGradient(Team& team, const LinearWeightGradientArgs& args);
// The part of some rows and at most kBiasColumns outputs, on the calling thread.
inline constexpr int64_t kBiasColumns = 64;
void BiasGradient(const LinearWeightGradientArgs& args, Range rows, Range outputs, Accumulate accumulate);

// oneDNN's primitives on weights in its own layout.
namespace library {
int64_t PackedLinearBytes(const LinearShape& shape);
void PackLinear(Team& team, const LinearShape& shape, const float* weight, std::byte* packed);
void Multiply(Team& team, const PackedProductArgs& args);
void WeightGradient(Team& team, const LinearWeightGradientArgs& args);
}  // namespace library

// tile_product.h: bf16 on matrix registers, where the processor has them.
namespace tiles {
int64_t PackedLinearBytes(const LinearShape& shape);
void PackLinear(Team& team, const LinearShape& shape, const float* weight, std::byte* packed);
void Multiply(Team& team, const PackedProductArgs& args);
void WeightGradient(Team& team, const LinearWeightGradientArgs& args);
}  // namespace tiles

// panel_product.h, in f32: bf16 operands are widened, which is exact, and the result is rounded once.
namespace panels {
int64_t PackedLinearBytes(const LinearShape& shape);
void PackLinear(Team& team, const LinearShape& shape, const float* weight, std::byte* packed);
void Multiply(Team& team, const PackedProductArgs& args);
void WeightGradient(Team& team, const LinearWeightGradientArgs& args);
}  // namespace panels

inline int64_t RoundUp(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// `count` rows or columns in nearly equal blocks of about `most`, each but the last a multiple of 64.
struct Split {
  Split(int64_t count, int64_t most) : count(count) {
    const int64_t wanted = (count + most - 1) / most;
    width = std::min(count, RoundUp((count + wanted - 1) / wanted, 64));
  }
  int64_t blocks() const { return (count + width - 1) / width; }
  int64_t begin(int64_t block) const { return block * width; }
  int64_t size(int64_t block) const { return std::min(width, count - block * width); }
  int64_t count;
  int64_t width;
};

inline std::byte* At(const TensorView& matrix, int64_t row, int64_t column) {
  return matrix.data + (row * matrix.columns() + column) * SizeOf(matrix.dtype);
}
template <class T>
Block<T> BlockAt(const TensorView& matrix, int64_t row, int64_t column) {
  return {reinterpret_cast<T*>(At(matrix, row, column)), matrix.columns()};
}
// Calls body with a value of the C++ type of f32 or bf16.
template <class Body>
void WithType(DType type, Body body) {
  type == DType::kBF16 ? body(BFloat16()) : body(float());
}

}  // namespace sluice::cpu
