// Bringing matrices into the tiles that tile_product.h multiplies, zero-padded to whole steps of 32. A left-hand tile
// is 16 rows of 32 elements of the depth; a right-hand tile is 16 pairs of the depth of 16 columns each, the two of a
// pair adjacent. Groups of 32 rows (columns) follow one another, each with its steps along the depth in order.
// Single-threaded, no state.
#pragma once

#include <cstdint>

#include "kernels/cpu/matrix_rows.h"
#include "kernels/dtype.h"

namespace sluice::cpu::tiles {

// left(r, d) = source row r, column d.
void PackLeft(Extent rows_by_depth, Block<const BFloat16> source, BFloat16* packed);
void PackLeft(Extent rows_by_depth, Block<const float> source, BFloat16* packed);
// left(r, d) = source row d, column r.
void PackLeftTransposed(Extent depth_by_rows, Block<const BFloat16> source, BFloat16* packed);
// right(d, c) = source row d, column c.
void PackRight(Extent depth_by_columns, Block<const BFloat16> source, BFloat16* packed);
// right(d, c) = source row c, column d.
void PackRightTransposed(Extent columns_by_depth, Block<const BFloat16> source, BFloat16* packed);

// Rows [begin, begin + 32) of a weight [outputs, inputs], read once and rounded: for the forward product, whose columns
// are the outputs, and for the input gradient, whose depth they are.
struct PackedWeight {
  const float* weight = nullptr;
  int64_t outputs = 0;
  int64_t inputs = 0;
  BFloat16* forward = nullptr;         // groups of outputs, steps of inputs
  BFloat16* input_gradient = nullptr;  // groups of inputs, steps of outputs; null: not wanted
};
void PackWeightGroup(const PackedWeight& weight, int64_t begin);

}  // namespace sluice::cpu::tiles
