#include "kernels/cpu/attention.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/attention_heads.h"
#include "kernels/cpu/attention_rows.h"
#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/matrix_rows.h"
#include "kernels/cpu/panel_product.h"
#include "kernels/cpu/tile_product.h"
#include "kernels/operation_check.h"

namespace sluice::cpu {
namespace {

// Queries and keys of a block in the backward pass: whole tiles and panels on any processor, deep enough for sums over
// the queries, and small enough for the second-level cache. The forward pass takes one tile of queries after another.
constexpr int64_t kQueries = 96;
constexpr int64_t kKeys = 512;
// Between rows of scores, so that they don't fall into the same sets of the cache.
constexpr int64_t kPadding = 16;

int64_t RoundUp(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// Consecutive queries [begin, end); the keys that any of them attends to begin at first_key, on a panel's border.
struct Queries {
  Queries(const KeyHead& head, int64_t begin, int64_t most)
      : begin(begin), count(std::min(most, head.shape.sequence - begin)), end(begin + count), first_key(0) {
    if (head.first_key == nullptr) return;
    const int32_t lowest = *std::min_element(head.first_key + begin, head.first_key + end);
    first_key = lowest / PanelWidth() * PanelWidth();
  }
  int64_t begin;
  int64_t count;
  int64_t end;
  int64_t first_key;
};

// Keys [begin, end) of a head, begin on a panel's border, and how far apart rows of scores over them are.
struct Keys {
  int64_t begin;
  int64_t end;
  int64_t stride;
  int64_t count() const { return end - begin; }
  // Which of them query t attends to.
  ScoreRange RangeOf(const KeyHead& head, int64_t t) const {
    const int64_t hidden = head.first_key == nullptr ? 0 : head.first_key[t];
    const int64_t first = std::max(hidden, begin) - begin, last = std::min(t + 1, end) - begin;
    return first < last ? ScoreRange{first, last} : ScoreRange{};
  }
};

// What rows of scores over `keys` keys need: results of products are whole panels.
int64_t ScoreStride(int64_t keys) { return RoundUp(keys, PanelWidth()) + kPadding; }

// scores[query, key - keys.begin] = left[query] . right[key] for a tile of queries, with right^T in panels. Whole
// panels: what stands behind the keys is for nobody.
void MultiplyByKeys(const KeyHead& head, const Keys& keys, int64_t queries, const float* tile, const float* panels,
                    float* scores) {
  const int64_t size = head.shape.head_size;
  Multiply(PanelProduct{.rows = queries,
                        .columns = RoundUp(keys.count(), PanelWidth()),
                        .depth = size,
                        .a = tile,
                        .a_row_stride = 1,
                        .a_depth_stride = TileRows(),
                        .panels = panels + keys.begin * size,
                        .panel_stride = size * PanelWidth(),
                        .y = scores,
                        .y_stride = keys.stride});
}

// result[query] (+)= sum over the keys of scores[query, key - keys.begin] * right[key], with right in panels.
void SumOverKeys(const KeyHead& head, const Keys& keys, int64_t queries, const float* scores, const float* panels,
                 Accumulate accumulate, float* result) {
  const int64_t size = head.shape.head_size;
  Multiply(PanelProduct{.rows = queries,
                        .columns = size,
                        .depth = keys.count(),
                        .a = scores,
                        .a_row_stride = keys.stride,
                        .panels = panels + keys.begin * PanelWidth(),
                        .panel_stride = head.shape.sequence * PanelWidth(),
                        .before = accumulate == Accumulate::kAdd ? result : nullptr,
                        .before_stride = size,
                        .y = result,
                        .y_stride = size});
}

// result[key] += sum over the queries from `query` on of scores[query, key - keys.begin] * right[query], with right in
// panels, for the keys [first, last).
struct QuerySum {
  const Queries& queries;
  const Keys& keys;
  const float* scores;
  const float* panels;
  float* result;
};
void AddOverQueries(const KeyHead& head, const QuerySum& sum, int64_t query, int64_t first, int64_t last) {
  const int64_t size = head.shape.head_size;
  float* y = sum.result + first * size;
  Multiply(PanelProduct{.rows = last - first,
                        .columns = size,
                        .depth = sum.queries.count - query,
                        .a = sum.scores + query * sum.keys.stride + first - sum.keys.begin,
                        .a_row_stride = 1,
                        .a_depth_stride = sum.keys.stride,
                        .panels = sum.panels + query * PanelWidth(),
                        .panel_stride = kQueries * PanelWidth(),
                        .before = y,
                        .before_stride = size,
                        .y = y,
                        .y_stride = size});
}
// All keys: those before the queries take part in each, the others only in the tiles from their own on.
void AddOverQueries(const KeyHead& head, const QuerySum& sum) {
  const int64_t diagonal = std::min(sum.queries.begin, sum.keys.end);
  if (sum.keys.begin < diagonal) AddOverQueries(head, sum, 0, sum.keys.begin, diagonal);
  for (int64_t key = diagonal; key < sum.keys.end; key += TileRows()) {
    AddOverQueries(head, sum, key - diagonal, key, std::min(key + TileRows(), sum.keys.end));
  }
}

// Panels of the keys or values of a head, [size, keys] for products with each key, or [keys, size] for sums over keys.
template <class T>
void PackForProducts(const KeyHead& head, const T* qkv, int64_t part, float* panels) {
  const int64_t size = head.shape.head_size;
  PackPanels(size, head.shape.sequence, PanelSource<T>{qkv + head.QkvAt(0, part), 1, head.width()}, panels,
             size * PanelWidth());
}
template <class T>
void PackForSums(const KeyHead& head, const T* qkv, int64_t part, float* panels) {
  PackPanels(head.shape.sequence, head.shape.head_size, PanelSource<T>{qkv + head.QkvAt(0, part), head.width(), 1},
             panels, head.shape.sequence * PanelWidth());
}

// The left-hand side of products with keys or values: rows of one head, from token t on.
template <class T>
void PackRows(const KeyHead& head, const Queries& queries, const T* rows, int64_t stride, float* tiles) {
  const int64_t size = head.shape.head_size;
  PackTiles(size, queries.count, PanelSource<T>{rows, 1, stride}, tiles, TileFloats(size));
}

struct ForwardScratch {
  ForwardScratch(const AttentionShape& shape, std::byte* memory) {
    Pieces pieces(memory);
    keys = pieces.Take<float>(PanelFloats(shape.head_size, shape.sequence));
    values = pieces.Take<float>(PanelFloats(shape.sequence, shape.head_size));
    tile = pieces.Take<float>(TileFloats(shape.head_size));
    results = pieces.Take<float>(TileRows() * shape.head_size);
    scores = pieces.Take<float>(TileRows() * ScoreStride(shape.sequence));
    bytes = pieces.bytes();
  }
  float *keys, *values, *tile, *results, *scores;
  int64_t bytes;
};

// One tile of queries.
template <class T>
void ForwardTile(const AttentionForwardArgs& args, const KeyHead& head, int64_t query_head, const Queries& queries,
                 const ForwardScratch& s) {
  const int64_t size = head.shape.head_size;
  const Keys keys{queries.first_key, queries.end, ScoreStride(head.shape.sequence)};
  PackRows(head, queries, args.qkv.as<const T>() + head.QkvAt(queries.begin, query_head), head.width(), s.tile);
  MultiplyByKeys(head, keys, queries.count, s.tile, s.keys, s.scores);
  ScoreRange ranges[kQueries];
  SoftmaxSum softmax[kQueries];
  for (int64_t i = 0; i < queries.count; ++i) ranges[i] = keys.RangeOf(head, queries.begin + i);
  Exponentiate({queries.count, keys.count(), ranges, s.scores, keys.stride}, head.shape.scale, softmax);
  SumOverKeys(head, keys, queries.count, s.scores, s.values, Accumulate::kOverwrite, s.results);
  for (int64_t i = 0; i < queries.count; ++i) {
    const int64_t t = queries.begin + i;
    args.lse.as<float>()[head.LseAt(t, query_head)] = softmax[i].max + std::log(softmax[i].sum);
    Scale(size, 1.0f / softmax[i].sum, s.results + i * size, args.y.as<T>() + head.YAt(t, query_head));
  }
}

template <class T>
void ForwardHead(const AttentionForwardArgs& args, const KeyHead& head) {
  const int64_t bytes = ForwardScratch(head.shape, nullptr).bytes;
  const ForwardScratch s(head.shape, ThreadScratch(ScratchSlot::kOperation, bytes));
  PackForProducts(head, args.qkv.as<const T>(), head.key_part(), s.keys);
  PackForSums(head, args.qkv.as<const T>(), head.value_part(), s.values);
  for (int64_t i = 0; i < head.group(); ++i) {
    for (int64_t t = 0; t < head.shape.sequence; t += TileRows()) {
      ForwardTile<T>(args, head, head.query_head(i), Queries(head, t, TileRows()), s);
    }
  }
}

struct BackwardScratch {
  BackwardScratch(const AttentionShape& shape, std::byte* memory)
      : score_stride(ScoreStride(std::min(RoundUp(shape.sequence, PanelWidth()), kKeys + kQueries))) {
    Pieces pieces(memory);
    const int64_t size = shape.head_size, tiles = kQueries / TileRows();
    key_products = pieces.Take<float>(PanelFloats(size, shape.sequence));
    value_products = pieces.Take<float>(PanelFloats(size, shape.sequence));
    key_sums = pieces.Take<float>(PanelFloats(shape.sequence, size));
    dk = pieces.Take<float>(shape.sequence * size);
    dv = pieces.Take<float>(shape.sequence * size);
    dq = pieces.Take<float>(kQueries * size);
    query_tiles = pieces.Take<float>(tiles * TileFloats(size));
    dy_tiles = pieces.Take<float>(tiles * TileFloats(size));
    query_panels = pieces.Take<float>(PanelFloats(kQueries, size));
    dy_panels = pieces.Take<float>(PanelFloats(kQueries, size));
    p = pieces.Take<float>(kQueries * score_stride);
    ds = pieces.Take<float>(kQueries * score_stride);
    bytes = pieces.bytes();
  }
  int64_t score_stride;
  float *key_products, *value_products, *key_sums;  // panels over all keys
  float *dk, *dv;                                   // [T, D]
  float* dq;                                        // [kQueries, D]
  float *query_tiles, *dy_tiles;                    // [kQueries, D] in tiles
  float *query_panels, *dy_panels;                  // [kQueries, D] in panels
  float *p, *ds;                                    // probabilities, gradient of the scores, of a block
  int64_t bytes;
};

// What a block's rows of scores need besides their products.
struct RowGradients {
  RowGradient rows[kQueries];
};
template <class T>
RowGradients RowGradientsOf(const AttentionBackwardArgs& args, const KeyHead& head, int64_t query_head,
                            const Queries& queries) {
  RowGradients result;
  for (int64_t i = 0; i < queries.count; ++i) {
    const int64_t t = queries.begin + i, at = head.YAt(t, query_head);
    // The mean of dp under p is dy . y, since y = p . values.
    result.rows[i] = {args.lse.as<float>()[head.LseAt(t, query_head)],
                      Dot(head.shape.head_size, args.dy.as<const T>() + at, args.y.as<const T>() + at)};
  }
  return result;
}

// The keys of a block in pieces of kKeys; the last ones reach to the diagonal. A query of a tile sees nothing behind
// the tile's last, and nobody asks for it.
void BackwardKeys(const KeyHead& head, const Queries& queries, const Keys& keys, const RowGradients& gradients,
                  const BackwardScratch& s) {
  const int64_t size = head.shape.head_size;
  const Accumulate accumulate = keys.begin == queries.first_key ? Accumulate::kOverwrite : Accumulate::kAdd;
  for (int64_t row = 0; row < queries.count; row += TileRows()) {
    const int64_t rows = std::min(TileRows(), queries.count - row), tile = row / TileRows() * TileFloats(size);
    const Keys seen{keys.begin, std::min(keys.end, queries.begin + row + rows), keys.stride};
    float *p = s.p + row * keys.stride, *ds = s.ds + row * keys.stride;
    MultiplyByKeys(head, seen, rows, s.query_tiles + tile, s.key_products, p);
    MultiplyByKeys(head, seen, rows, s.dy_tiles + tile, s.value_products, ds);
    ScoreRange ranges[kQueries];
    for (int64_t i = 0; i < rows; ++i) ranges[i] = seen.RangeOf(head, queries.begin + row + i);
    ScoreGradients({rows, seen.count(), ranges, p, keys.stride}, head.shape.scale, gradients.rows + row, ds);
    SumOverKeys(head, seen, rows, ds, s.key_sums, accumulate, s.dq + row * size);
  }
  AddOverQueries(head, QuerySum{queries, keys, s.p, s.dy_panels, s.dv});
  AddOverQueries(head, QuerySum{queries, keys, s.ds, s.query_panels, s.dk});
}

template <class T>
void BackwardBlock(const AttentionBackwardArgs& args, const KeyHead& head, int64_t query_head, const Queries& queries,
                   const BackwardScratch& s) {
  const int64_t size = head.shape.head_size, y_stride = head.shape.heads * size;
  const int64_t panel_stride = kQueries * PanelWidth(), qkv_at = head.QkvAt(queries.begin, query_head);
  const T* q = args.qkv.as<const T>() + qkv_at;
  const T* dy = args.dy.as<const T>() + head.YAt(queries.begin, query_head);
  PackRows(head, queries, q, head.width(), s.query_tiles);
  PackRows(head, queries, dy, y_stride, s.dy_tiles);
  PackPanels(queries.count, size, PanelSource<T>{q, head.width(), 1}, s.query_panels, panel_stride);
  PackPanels(queries.count, size, PanelSource<T>{dy, y_stride, 1}, s.dy_panels, panel_stride);
  const RowGradients gradients = RowGradientsOf<T>(args, head, query_head, queries);
  int64_t key = queries.first_key;
  for (; key + kKeys <= queries.begin; key += kKeys) {
    BackwardKeys(head, queries, {key, key + kKeys, s.score_stride}, gradients, s);
  }
  BackwardKeys(head, queries, {key, queries.end, s.score_stride}, gradients, s);
  ConvertRows({queries.count, size}, Block<const float>{s.dq, size},
              Block<T>{args.dqkv.as<T>() + qkv_at, head.width()});
}

template <class T>
void BackwardHead(const AttentionBackwardArgs& args, const KeyHead& head) {
  const int64_t bytes = BackwardScratch(head.shape, nullptr).bytes;
  const BackwardScratch s(head.shape, ThreadScratch(ScratchSlot::kOperation, bytes));
  const int64_t sequence = head.shape.sequence, size = head.shape.head_size;
  PackForProducts(head, args.qkv.as<const T>(), head.key_part(), s.key_products);
  PackForProducts(head, args.qkv.as<const T>(), head.value_part(), s.value_products);
  PackForSums(head, args.qkv.as<const T>(), head.key_part(), s.key_sums);
  std::fill_n(s.dk, sequence * size, 0.0f);
  std::fill_n(s.dv, sequence * size, 0.0f);
  for (int64_t i = 0; i < head.group(); ++i) {
    for (int64_t t = 0; t < sequence; t += kQueries) {
      BackwardBlock<T>(args, head, head.query_head(i), Queries(head, t, kQueries), s);
    }
  }
  const auto store = [&](const float* gradient, int64_t part) {
    ConvertRows({sequence, size}, Block<const float>{gradient, size},
                Block<T>{args.dqkv.as<T>() + head.QkvAt(0, part), head.width()});
  };
  store(s.dk, head.key_part());
  store(s.dv, head.value_part());
}

}  // namespace

void AttentionForward(Team& team, const AttentionForwardArgs& args) {
  CheckArguments(args);
  if (args.qkv.dtype == DType::kBF16 && tiles::Available()) return tiles::AttentionForward(team, args);
  ForEachKeyHead(team, args.shape, args.first_key, [&](const KeyHead& head) {
    args.qkv.dtype == DType::kBF16 ? ForwardHead<BFloat16>(args, head) : ForwardHead<float>(args, head);
  });
}

void AttentionBackward(Team& team, const AttentionBackwardArgs& args) {
  CheckArguments(args);
  if (args.qkv.dtype == DType::kBF16 && tiles::Available()) return tiles::AttentionBackward(team, args);
  ForEachKeyHead(team, args.shape, args.first_key, [&](const KeyHead& head) {
    args.qkv.dtype == DType::kBF16 ? BackwardHead<BFloat16>(args, head) : BackwardHead<float>(args, head);
  });
}

}  // namespace sluice::cpu
