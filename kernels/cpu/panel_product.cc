#include "kernels/cpu/panel_product.h"

#include <algorithm>
#include <type_traits>
#include <utility>

#include "kernels/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/panel_product.cc"
#include "hwy/foreach_target.h"
// In this order.
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {

// Rows of a tile: with two vectors of columns, as many sums as leave registers for the operands.
#if HWY_TARGET <= HWY_AVX3
constexpr int kTileRows = 12;
#else
constexpr int kTileRows = 6;
#endif

// Where a tile of the result goes.
struct TileEnd {
  const float* before;
  int64_t before_stride;
  const float* bias;
  float* y;
  int64_t y_stride;
  int64_t columns;  // of this panel that exist
};

HWY_INLINE void StoreTileRow(const TileEnd& end, int row, int64_t column, V sum) {
  const auto store = [&](auto part) SIMD_LAMBDA {
    V value = sum;
    if (end.before != nullptr) value = hn::Add(Load(end.before + row * end.before_stride + column, part), value);
    if (end.bias != nullptr) value = hn::Add(value, Load(end.bias + column, part));
    Store(value, end.y + row * end.y_stride + column, part);
  };
  const int64_t left = end.columns - column;
  if (left >= Lanes()) {
    store(Whole());
  } else if (left > 0) {
    store(Part{left});
  }
}

// What the tile will write, and a share of the panel after this one, are on their way while it multiplies.
struct Prefetch {
  const float* data;
  int64_t floats;
};
constexpr int64_t kLineFloats = 16;

template <int kRows, bool kTransposed>
HWY_NOINLINE void Tile(int64_t depth, const float* HWY_RESTRICT a, int64_t stride, const float* HWY_RESTRICT panel,
                       const TileEnd& end, Prefetch next) {
  const F32Tag f32;
  const int64_t lanes = Lanes();
  const int64_t row_stride = kTransposed ? 1 : stride, depth_stride = kTransposed ? stride : 1;
  for (int r = 0; r < kRows; ++r) {
    __builtin_prefetch(end.y + r * end.y_stride, 1, 3);
    __builtin_prefetch(end.y + r * end.y_stride + 2 * lanes - 1, 1, 3);
  }
  for (int64_t i = 0; i < next.floats; i += kLineFloats) __builtin_prefetch(next.data + i, 0, 2);
  V left[kRows], right[kRows];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) left[r] = right[r] = hn::Zero(f32);
  for (int64_t d = 0; d < depth; ++d) {
    const V b0 = hn::LoadU(f32, panel), b1 = hn::LoadU(f32, panel + lanes);
    panel += 2 * lanes;
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const V x = hn::Set(f32, a[r * row_stride]);
      left[r] = hn::MulAdd(x, b0, left[r]);
      right[r] = hn::MulAdd(x, b1, right[r]);
    }
    a += depth_stride;
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    StoreTileRow(end, r, 0, left[r]);
    StoreTileRow(end, r, lanes, right[r]);
  }
}

using TileFunction = void (*)(int64_t, const float*, int64_t, const float*, const TileEnd&, Prefetch);

// Tiles of 1 ... kTileRows rows.
template <bool kTransposed, int... kRows>
TileFunction TileOf(int64_t rows, std::integer_sequence<int, kRows...>) {
  static constexpr TileFunction kTiles[] = {Tile<kRows + 1, kTransposed>...};
  return kTiles[rows - 1];
}

void MultiplyTiles(const PanelProduct& p) {
  const int64_t width = 2 * Lanes();
  const bool transposed = p.a_row_stride == 1 && p.a_depth_stride != 1;
  const int64_t stride = transposed ? p.a_depth_stride : p.a_row_stride;
  const auto tile_of = [&](int64_t rows) {
    constexpr auto kSizes = std::make_integer_sequence<int, kTileRows>();
    return transposed ? TileOf<true>(rows, kSizes) : TileOf<false>(rows, kSizes);
  };
  // Tiles share the prefetching of the next panel evenly.
  const int64_t tiles = (p.rows + kTileRows - 1) / kTileRows;
  const int64_t share = (p.depth * width / tiles + kLineFloats - 1) / kLineFloats * kLineFloats;
  const float* panel = p.panels;
  for (int64_t column = 0; column < p.columns; column += width, panel += p.panel_stride) {
    for (int64_t row = 0; row < p.rows; row += kTileRows) {
      const TileEnd end{p.before == nullptr ? nullptr : p.before + row * p.before_stride + column,
                        p.before_stride,
                        p.bias == nullptr ? nullptr : p.bias + column,
                        p.y + row * p.y_stride + column,
                        p.y_stride,
                        p.columns - column};
      const int64_t begin = std::min(p.depth * width, row / kTileRows * share);
      const int64_t floats = column + width < p.columns ? std::min(share, p.depth * width - begin) : 0;
      tile_of(std::min<int64_t>(kTileRows, p.rows - row))(p.depth, p.a + row * p.a_row_stride, stride, panel, end,
                                                          {panel + p.panel_stride + begin, floats});
    }
  }
}

template <class T>
HWY_INLINE float AsFloat(T value) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    return ToFloat(value);
  } else {
    return value;
  }
}

// Rows of the source are rows of the panels: each is read once, from left to right.
template <class T>
void PackRows(int64_t depth, int64_t columns, const T* source, int64_t stride, float* panels, int64_t panel_stride) {
  const int64_t width = 2 * Lanes();
  for (int64_t d = 0; d < depth; ++d, source += stride, panels += width) {
    float* to = panels;
    int64_t column = 0;
    for (; column + width <= columns; column += width, to += panel_stride) {
      Store(Load(source + column, Whole()), to, Whole());
      Store(Load(source + column + Lanes(), Whole()), to + Lanes(), Whole());
    }
    for (int64_t c = 0; column < columns && c < width; ++c) {
      to[c] = column + c < columns ? AsFloat(source[column + c]) : 0.0f;
    }
  }
}

// Rows of the source are columns of the panel. Four at a time: their stores fall into the same cache lines.
template <class T>
HWY_INLINE void PackColumns(int64_t depth, int64_t columns, const T* source, int64_t stride, float* to) {
  const int64_t width = 2 * Lanes();
  int64_t c = 0;
  for (; c + 4 <= columns; c += 4) {
    const T* s = source + c * stride;
    for (int64_t d = 0; d < depth; ++d) {
      float* out = to + d * width + c;
      out[0] = AsFloat(s[d]);
      out[1] = AsFloat(s[d + stride]);
      out[2] = AsFloat(s[d + 2 * stride]);
      out[3] = AsFloat(s[d + 3 * stride]);
    }
  }
  for (; c < width; ++c) {
    for (int64_t d = 0; d < depth; ++d) to[d * width + c] = c < columns ? AsFloat(source[c * stride + d]) : 0.0f;
  }
}

template <class T>
void PackAll(int64_t depth, int64_t columns, PanelSource<T> source, float* panels, int64_t panel_stride) {
  if (source.column_stride == 1) {
    return PackRows(depth, columns, source.data, source.depth_stride, panels, panel_stride);
  }
  const int64_t width = 2 * Lanes();
  for (int64_t column = 0; column < columns; column += width, panels += panel_stride) {
    PackColumns(depth, std::min(width, columns - column), source.data + column * source.column_stride,
                source.column_stride, panels);
  }
}

void PackF(int64_t depth, int64_t columns, PanelSource<float> source, float* panels, int64_t panel_stride) {
  PackAll(depth, columns, source, panels, panel_stride);
}
void PackB(int64_t depth, int64_t columns, PanelSource<BFloat16> source, float* panels, int64_t panel_stride) {
  PackAll(depth, columns, source, panels, panel_stride);
}

int64_t Width() { return 2 * Lanes(); }

}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::cpu {

HWY_EXPORT(MultiplyTiles);
HWY_EXPORT(PackF);
HWY_EXPORT(PackB);
HWY_EXPORT(Width);

int64_t PanelWidth() { return HWY_DYNAMIC_DISPATCH(Width)(); }

int64_t PanelFloats(int64_t depth, int64_t columns) {
  const int64_t width = PanelWidth();
  return depth * ((columns + width - 1) / width) * width;
}

void PackPanels(int64_t depth, int64_t columns, PanelSource<float> source, float* panels, int64_t panel_stride) {
  HWY_DYNAMIC_DISPATCH(PackF)(depth, columns, source, panels, panel_stride);
}
void PackPanels(int64_t depth, int64_t columns, PanelSource<BFloat16> source, float* panels, int64_t panel_stride) {
  HWY_DYNAMIC_DISPATCH(PackB)(depth, columns, source, panels, panel_stride);
}

void Multiply(const PanelProduct& product) { HWY_DYNAMIC_DISPATCH(MultiplyTiles)(product); }

}  // namespace sluice::cpu
#endif  // HWY_ONCE
