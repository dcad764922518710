// What stands around the matrix products: widening and rounding blocks of rows, and sums of columns. SIMD,
// single-threaded.
#pragma once

#include <cstdint>

#include "kernels/dtype.h"

namespace sluice::cpu {

// A block of a row-major matrix.
template <class T>
struct Block {
  T* data = nullptr;
  int64_t stride = 0;  // elements between rows
};

struct Extent {
  int64_t rows = 0;
  int64_t columns = 0;
};

// to = from, widened or rounded where the types differ.
void ConvertRows(Extent extent, Block<const float> from, Block<float> to);
void ConvertRows(Extent extent, Block<const float> from, Block<BFloat16> to);
void ConvertRows(Extent extent, Block<const BFloat16> from, Block<float> to);
void ConvertRows(Extent extent, Block<const BFloat16> from, Block<BFloat16> to);
// to = from, rounded to bf16 and widened again.
void RoundRows(Extent extent, Block<const float> from, Block<float> to);
// to = a + b, rounded once. to may be b.
void AddRows(Extent extent, Block<const float> a, Block<const BFloat16> b, Block<BFloat16> to);
void AddRows(Extent extent, Block<const float> a, Block<const BFloat16> b, Block<float> to);
// sums[c] = sum over the rows of column c, rows ascending in groups.
void SumColumns(Extent extent, Block<const float> from, float* sums);
void SumColumns(Extent extent, Block<const BFloat16> from, float* sums);

}  // namespace sluice::cpu
