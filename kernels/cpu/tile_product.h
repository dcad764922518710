// bf16 matrix product on the processor's matrix registers (Intel AMX), f32 sums: of weights, of their gradients, and of
// the blocks inside attention. Both operands lie in tiles of 16 rows of 64 bytes; the right-hand one always packed
// (tile_packing.h), the left-hand one packed or where it is.
//
// The kernel multiplies 32 x 32 results over the depth in steps of 32, four tiles of sums from two and two; the results
// of one block are rounded and written while the next one is multiplied, since the vector units are idle then. An
// element's sum runs over the depth in ascending order, whatever the size and place of its block. Single-threaded; the
// only state is the thread's tile configuration. (Instructions: Intel SDM volume 1, chapter 18.)
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/dtype.h"

namespace sluice::cpu::tiles {

// Rows, columns and depth of one step of the kernel, and elements of one packed operand of a step.
inline constexpr int64_t kStep = 32;
inline constexpr int64_t kStepElements = kStep * kStep;

inline int64_t Steps(int64_t count) { return (count + kStep - 1) / kStep; }
// Elements of a packed operand: 32 rows (or columns) by the depth, both padded to whole steps.
inline int64_t PackedElements(int64_t count, int64_t depth) { return Steps(count) * Steps(depth) * kStepElements; }

// Whether this processor has bf16 tiles and the system lets this process use them. Everything else REQUIRES it.
bool Available();

// Groups of 32 rows of the left-hand matrix. Strides in elements; a packed group has those of Packed().
struct Left {
  const BFloat16* data = nullptr;
  int64_t group_stride = 0;
  int64_t half_stride = 0;  // from the first to the second 16 rows
  int64_t row_stride = 0;
  int64_t step_stride = 0;  // along the depth

  // Whole groups of a row-major matrix where they are. REQUIRES: rows and depth are multiples of 32.
  static Left InPlace(const BFloat16* data, int64_t stride) {
    return {data, kStep * stride, kStep / 2 * stride, stride, kStep};
  }
  static Left Packed(const BFloat16* data, int64_t depth) {
    return {data, Steps(depth) * kStepElements, kStepElements / 2, kStep, kStepElements};
  }
};

// Where results go: y[r, c] = sum + bias[c] + add[r, c], rounded once.
struct Target {
  std::byte* y = nullptr;
  DType y_type = DType::kF32;
  int64_t y_stride = 0;            // elements between rows
  const float* bias = nullptr;     // optional
  const std::byte* add = nullptr;  // optional; may be y
  DType add_type = DType::kF32;
  int64_t add_stride = 0;
};

// Floats of Product::sums.
inline int64_t SumFloats(int64_t rows, int64_t columns) {
  return std::max<int64_t>(2, Steps(rows) * Steps(columns)) * kStepElements;
}

// In which order blocks are multiplied: down the columns, where the right-hand side comes from far and is read once; or
// along the rows, where what is added to does, so that it is walked through as it lies.
enum class Walk : uint8_t { kDownColumns, kAlongRows };

// One block of a product: rows x columns over a piece of the depth.
struct Product {
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t steps = 0;               // of the depth, in this piece
  Left left;                       // of the whole groups of rows; all of them if there is no tail
  const BFloat16* tail = nullptr;  // the last, partial group of rows, packed by itself over this piece
  const BFloat16* right = nullptr;
  int64_t right_stride = 0;  // elements between packed columns groups
  float* sums = nullptr;     // scratch between the pieces of a depth, 64-byte aligned
  bool first = true;         // piece of the depth
  bool last = true;          // `target` is written
  Walk walk = Walk::kDownColumns;
  Target target;
};
void Multiply(const Product& product);

// Around calls of Multiply, on each thread: the tile configuration is a register of the thread that others may have
// changed.
class Session {
 public:
  Session();
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
};

}  // namespace sluice::cpu::tiles
