#include "kernels/cpu/panel_product.h"

#include <algorithm>
#include <cstring>
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

// Stores one of the two vectors of all rows.
template <int kRows, class Size>
HWY_INLINE void StoreColumns(const TileEnd& end, int64_t column, V* sums, Size part) {
  if (end.before != nullptr) {
    const float* before = end.before + column;
    const int64_t stride = end.before_stride;
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) sums[r] = hn::Add(Load(before + r * stride, part), sums[r]);
  }
  if (end.bias != nullptr) {
    const V bias = Load(end.bias + column, part);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) sums[r] = hn::Add(sums[r], bias);
  }
  float* y = end.y + column;
  const int64_t stride = end.y_stride;
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) Store(sums[r], y + r * stride, part);
}

template <int kRows>
HWY_INLINE void StoreTile(const TileEnd& end, int64_t column, V* sums) {
  const int64_t left = end.columns - column;
  if (left >= Lanes()) {
    StoreColumns<kRows>(end, column, sums, Whole());
  } else if (left > 0) {
    StoreColumns<kRows>(end, column, sums, Part{left});
  }
}

// A tile's share of the lines of a Prefetch, fetched a few at a time.
constexpr int64_t kLineBytes = 64;
class Lines {
 public:
  // Share number `index` of shares of `size` lines.
  Lines(const Prefetch& memory, int64_t index, int64_t size)
      : stride_(memory.stride_bytes), row_lines_(LinesOfRow(memory)) {
    const int64_t lines = memory.rows * row_lines_, begin = std::min(lines, index * size);
    left_ = std::min(size, lines - begin);
    if (left_ == 0) return;
    const int64_t row = memory.rows == 1 ? 0 : begin / row_lines_;
    at_ = static_cast<const char*>(memory.data) + row * stride_;
    line_ = begin - row * row_lines_;
  }
  static int64_t ShareOf(const Prefetch& memory, int64_t shares) {
    return (memory.rows * LinesOfRow(memory) + shares - 1) / shares;
  }
  int64_t left() const { return left_; }
  HWY_INLINE void Fetch(int64_t count) {
    for (count = std::min(count, left_), left_ -= count; count > 0; --count) {
      __builtin_prefetch(at_ + line_ * kLineBytes, 0, 2);
      if (++line_ == row_lines_) {
        line_ = 0;
        at_ += stride_;
      }
    }
  }

 private:
  static int64_t LinesOfRow(const Prefetch& memory) { return (memory.row_bytes + kLineBytes - 1) / kLineBytes; }

  int64_t stride_;
  int64_t row_lines_;
  int64_t left_;
  const char* at_ = nullptr;
  int64_t line_ = 0;
};

// While a tile multiplies, the rows of y that it will write and its share of what comes next are on their way: a few at
// a time, since a core waits for few lines at once, and those of the operands come first.
template <int kRows, bool kTransposed>
HWY_NOINLINE void Tile(int64_t depth, const float* HWY_RESTRICT a, int64_t stride, const float* HWY_RESTRICT panel,
                       const TileEnd& end, Lines panel_ahead, Lines ahead) {
  const F32Tag f32;
  const int64_t lanes = Lanes();
  const int64_t row_stride = kTransposed ? 1 : stride, depth_stride = kTransposed ? stride : 1;
  V left[kRows], right[kRows];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) left[r] = right[r] = hn::Zero(f32);
  const int64_t piece = (depth + kRows - 1) / kRows;
  const int64_t panel_lines = (panel_ahead.left() + kRows - 1) / kRows, lines = (ahead.left() + kRows - 1) / kRows;
  const float* y = end.y;
  for (int64_t begin = 0; begin < depth; begin += piece) {
    __builtin_prefetch(y, 1, 3);
    __builtin_prefetch(y + 2 * lanes - 1, 1, 3);
    y += end.y_stride;
    panel_ahead.Fetch(panel_lines);
    ahead.Fetch(lines);
    for (int64_t d = std::min(piece, depth - begin); d > 0; --d) {
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
  }
  StoreTile<kRows>(end, 0, left);
  StoreTile<kRows>(end, lanes, right);
}

using TileFunction = void (*)(int64_t, const float*, int64_t, const float*, const TileEnd&, Lines, Lines);

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
  const int64_t tile_stride = p.a_tile_stride != 0 ? p.a_tile_stride : kTileRows * p.a_row_stride;
  const auto tile_of = [&](int64_t rows) {
    constexpr auto kSizes = std::make_integer_sequence<int, kTileRows>();
    return transposed ? TileOf<true>(rows, kSizes) : TileOf<false>(rows, kSizes);
  };
  const int64_t tiles = (p.rows + kTileRows - 1) / kTileRows, panels = (p.columns + width - 1) / width;
  const int64_t panel_bytes = p.depth * width * sizeof(float);
  // A panel that serves one tile only comes too late, and is read from beginning to end anyway.
  const int64_t panel_share = tiles == 1 ? 0 : Lines::ShareOf({nullptr, 0, 1, panel_bytes}, tiles);
  const int64_t share = Lines::ShareOf(p.next, panels * tiles);
  for (int64_t index = 0; index < panels; ++index) {
    const float* panel = p.panels + index * p.panel_stride;
    const int64_t column = index * width;
    const Prefetch next_panel{panel + p.panel_stride, panel_bytes, index + 1 < panels, panel_bytes};
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t row = tile * kTileRows;
      const TileEnd end{p.before == nullptr ? nullptr : p.before + row * p.before_stride + column,
                        p.before_stride,
                        p.bias == nullptr ? nullptr : p.bias + column,
                        p.y + row * p.y_stride + column,
                        p.y_stride,
                        p.columns - column};
      tile_of(std::min<int64_t>(kTileRows, p.rows - row))(p.depth, p.a + tile * tile_stride, stride, panel, end,
                                                          Lines(next_panel, tile, panel_share),
                                                          Lines(p.next, index * tiles + tile, share));
    }
  }
}

HWY_INLINE int64_t RoundUpToVector(int64_t count) { return (count + Lanes() - 1) / Lanes() * Lanes(); }

template <class T>
HWY_INLINE float AsFloat(T value) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    return ToFloat(value);
  } else {
    return value;
  }
}

// Pieces of rows are too short for the processor to see what comes next: some hundred nanoseconds of packing lie
// between a row and the one that is fetched with it.
HWY_INLINE int64_t RowsAhead(int64_t row_elements) { return 4 + 1024 / row_elements; }

// Where a matrix is packed: pieces of `width` of its columns.
struct Pieces {
  float* data;
  int64_t width;
  int64_t stride;
};

// Rows of the source are rows of the pieces: each is read once, from left to right. Whole vectors may run over the end
// of a piece's row; the next row comes later, and the last one's follower is the stride's gap.
template <class T>
void PackRows(int64_t depth, int64_t columns, const T* source, int64_t stride, Pieces pieces) {
  const int64_t lanes = Lanes(), width = pieces.width, ahead = RowsAhead(columns) * stride;
  for (int64_t d = 0; d < depth; ++d, source += stride, pieces.data += width) {
    float* to = pieces.data;
    int64_t column = 0;
    for (; column + RoundUpToVector(width) <= columns; column += width, to += pieces.stride) {
      for (int64_t c = 0; c < width; c += lanes) {
        __builtin_prefetch(source + ahead + column + c);
        Store(Load(source + column + c, Whole()), to + c, Whole());
      }
    }
    for (; column < columns; column += width, to += pieces.stride) {
      for (int64_t c = 0; c < width; ++c) to[c] = column + c < columns ? AsFloat(source[column + c]) : 0.0f;
    }
  }
}

// Rows of the source are columns of the piece: four at a time, turned in registers.
template <class T>
HWY_INLINE void PackColumns(int64_t depth, int64_t columns, const T* source, int64_t stride, float* to, int64_t width) {
  const int64_t lanes = Lanes(), ahead = RowsAhead(depth) * stride;
  int64_t c = 0;
  for (; c + 4 <= columns; c += 4) {
    const T* s = source + c * stride;
    float* out = to + c;
    int64_t d = 0;
    for (; d + lanes <= depth; d += lanes) {
      for (int64_t i = 0; i < 4; ++i) __builtin_prefetch(s + ahead + d + i * stride);
      HWY_ALIGN float quads[4 * kMaxLanes];
      hn::StoreInterleaved4(Load(s + d, Whole()), Load(s + d + stride, Whole()), Load(s + d + 2 * stride, Whole()),
                            Load(s + d + 3 * stride, Whole()), F32Tag(), quads);
      for (int64_t i = 0; i < lanes; ++i, out += width) std::memcpy(out, quads + 4 * i, 4 * sizeof(float));
    }
    for (; d < depth; ++d, out += width) {
      for (int64_t i = 0; i < 4; ++i) out[i] = AsFloat(s[d + i * stride]);
    }
  }
  for (; c < width; ++c) {
    for (int64_t d = 0; d < depth; ++d) to[d * width + c] = c < columns ? AsFloat(source[c * stride + d]) : 0.0f;
  }
}

template <class T>
void PackAll(int64_t depth, int64_t columns, PanelSource<T> source, Pieces to) {
  if (source.column_stride == 1) return PackRows(depth, columns, source.data, source.depth_stride, to);
  for (int64_t column = 0; column < columns; column += to.width, to.data += to.stride) {
    PackColumns(depth, std::min(to.width, columns - column), source.data + column * source.column_stride,
                source.column_stride, to.data, to.width);
  }
}

void PackPanelsF(int64_t depth, int64_t columns, PanelSource<float> source, float* panels, int64_t stride) {
  PackAll(depth, columns, source, {panels, 2 * Lanes(), stride});
}
void PackPanelsB(int64_t depth, int64_t columns, PanelSource<BFloat16> source, float* panels, int64_t stride) {
  PackAll(depth, columns, source, {panels, 2 * Lanes(), stride});
}
void PackTilesF(int64_t depth, int64_t rows, PanelSource<float> source, float* tiles, int64_t stride) {
  PackAll(depth, rows, source, {tiles, kTileRows, stride});
}
void PackTilesB(int64_t depth, int64_t rows, PanelSource<BFloat16> source, float* tiles, int64_t stride) {
  PackAll(depth, rows, source, {tiles, kTileRows, stride});
}

int64_t Width() { return 2 * Lanes(); }
int64_t RowsOfTile() { return kTileRows; }
// With room for the vector that runs over the end of the last row.
int64_t FloatsOfTile(int64_t depth) { return RoundUpToVector(depth * kTileRows) + Lanes(); }

}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::cpu {

HWY_EXPORT(MultiplyTiles);
HWY_EXPORT(PackPanelsF);
HWY_EXPORT(PackPanelsB);
HWY_EXPORT(PackTilesF);
HWY_EXPORT(PackTilesB);
HWY_EXPORT(Width);
HWY_EXPORT(RowsOfTile);
HWY_EXPORT(FloatsOfTile);

int64_t PanelWidth() { return HWY_DYNAMIC_DISPATCH(Width)(); }
int64_t TileRows() { return HWY_DYNAMIC_DISPATCH(RowsOfTile)(); }
int64_t TileFloats(int64_t depth) { return HWY_DYNAMIC_DISPATCH(FloatsOfTile)(depth); }

int64_t PanelFloats(int64_t depth, int64_t columns) {
  const int64_t width = PanelWidth();
  return depth * ((columns + width - 1) / width) * width;
}

void PackPanels(int64_t depth, int64_t columns, PanelSource<float> source, float* panels, int64_t panel_stride) {
  HWY_DYNAMIC_DISPATCH(PackPanelsF)(depth, columns, source, panels, panel_stride);
}
void PackPanels(int64_t depth, int64_t columns, PanelSource<BFloat16> source, float* panels, int64_t panel_stride) {
  HWY_DYNAMIC_DISPATCH(PackPanelsB)(depth, columns, source, panels, panel_stride);
}
void PackTiles(int64_t depth, int64_t rows, PanelSource<float> source, float* tiles, int64_t tile_stride) {
  HWY_DYNAMIC_DISPATCH(PackTilesF)(depth, rows, source, tiles, tile_stride);
}
void PackTiles(int64_t depth, int64_t rows, PanelSource<BFloat16> source, float* tiles, int64_t tile_stride) {
  HWY_DYNAMIC_DISPATCH(PackTilesB)(depth, rows, source, tiles, tile_stride);
}

void Multiply(const PanelProduct& product) { HWY_DYNAMIC_DISPATCH(MultiplyTiles)(product); }

}  // namespace sluice::cpu
#endif  // HWY_ONCE
