// Our own f32 matrix product: of weights, of their gradients, and of the small blocks inside attention. The right-hand
// matrix lies in panels of PanelWidth() columns, packed once and used often.
//
// An element's sum runs over the depth in ascending order within a call, whatever the size and place of its block: a
// result depends on nothing else. (Method: Goto and van de Geijn, "Anatomy of high-performance matrix multiplication",
// 2008.) Single-threaded, no state. Kernels are chosen by instruction set.
#pragma once

#include <cstdint>

#include "kernels/dtype.h"

namespace sluice::cpu {

// Columns of a panel on this processor: two vectors.
int64_t PanelWidth();
// Floats of a matrix in panels: columns are padded to whole panels.
int64_t PanelFloats(int64_t depth, int64_t columns);
// The depth that is multiplied in one go: a panel of it fits the first-level cache.
inline constexpr int64_t kPanelDepth = 256;

// Element (d, c) of the source lies at data[d * depth_stride + c * column_stride]; one of the strides is 1.
template <class T>
struct PanelSource {
  const T* data = nullptr;
  int64_t depth_stride = 0;
  int64_t column_stride = 0;
};
// panels[p][d][j] = source(d, p * PanelWidth() + j), zero in the padding. A panel has panel_stride floats (at least
// depth * PanelWidth()), so that the depth can be packed piece by piece.
void PackPanels(int64_t depth, int64_t columns, PanelSource<float> source, float* panels, int64_t panel_stride);
void PackPanels(int64_t depth, int64_t columns, PanelSource<BFloat16> source, float* panels, int64_t panel_stride);

// The left-hand side in tiles of TileRows() rows: tiles[t][d][i] = source(d, t * TileRows() + i). A product reads each
// from beginning to end, where rows would be a dozen streams. A tile has tile_stride floats, at least
// TileFloats(depth).
int64_t TileRows();
int64_t TileFloats(int64_t depth);
void PackTiles(int64_t depth, int64_t rows, PanelSource<float> source, float* tiles, int64_t tile_stride);
void PackTiles(int64_t depth, int64_t rows, PanelSource<BFloat16> source, float* tiles, int64_t tile_stride);

// Memory that will be read soon.
struct Prefetch {
  const void* data = nullptr;
  int64_t stride_bytes = 0;  // between rows
  int64_t rows = 0;
  int64_t row_bytes = 0;
};

// y[r, c] = before[r, c] + sum over d of a(r, d) * right(d, c), + bias[c]
struct PanelProduct {
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t depth = 0;
  const float* a = nullptr;  // element (r, d) at a[r * a_row_stride + d * a_depth_stride]; one of them is 1
  int64_t a_row_stride = 0;
  int64_t a_depth_stride = 1;
  int64_t a_tile_stride = 0;  // between tiles of TileRows() rows, where they don't follow one another like rows
  const float* panels = nullptr;
  int64_t panel_stride = 0;
  const float* before = nullptr;  // optional; may be y
  int64_t before_stride = 0;
  const float* bias = nullptr;  // optional
  float* y = nullptr;
  int64_t y_stride = 0;
  Prefetch next;  // what the caller will read after this product
};
void Multiply(const PanelProduct& product);

}  // namespace sluice::cpu
