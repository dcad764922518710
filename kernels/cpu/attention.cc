#include "kernels/cpu/attention.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/attention_heads.h"
#include "kernels/cpu/attention_rows.h"
#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/matrix_rows.h"
#include "kernels/cpu/panel_product.h"
#include "kernels/cpu/tensor_check.h"
#include "kernels/cpu/tile_product.h"

namespace sluice::cpu {
namespace {

// Queries whose scores stay in the second-level cache, for sequences up to about a thousand.
constexpr int64_t kQueries = 64;
// Between rows of scores, so that they don't fall into the same sets of the cache.
constexpr int64_t kPadding = 16;

int64_t RoundUp(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// A block of queries and the keys [first, end) that any of them attends to; first is on a panel's border.
struct QueryBlock {
  QueryBlock(const KeyHead& head, int64_t begin)
      : begin(begin), count(std::min(kQueries, head.shape.sequence - begin)), end(begin + count), first(0) {
    if (head.first_key == nullptr) return;
    const int32_t lowest = *std::min_element(head.first_key + begin, head.first_key + end);
    first = lowest / PanelWidth() * PanelWidth();
  }
  ScoreRow Row(const KeyHead& head, int64_t query, float* scores) const {
    const int64_t t = begin + query;
    return {scores, keys(), (head.first_key == nullptr ? 0 : head.first_key[t]) - first, t + 1 - first};
  }
  int64_t keys() const { return end - first; }

  int64_t begin;
  int64_t count;
  int64_t end;
  int64_t first;
};

int64_t ScoreStride(const AttentionShape& shape) { return RoundUp(shape.sequence, 16) + kPadding; }

// scores[query, key - first] = left[query] . right[key], with right^T in panels.
void MultiplyByKeys(const KeyHead& head, const QueryBlock& block, const float* left, const float* panels,
                    float* scores) {
  const int64_t size = head.shape.head_size;
  Multiply(PanelProduct{.rows = block.count,
                        .columns = block.keys(),
                        .depth = size,
                        .a = left,
                        .a_row_stride = size,
                        .panels = panels + block.first * size,
                        .panel_stride = size * PanelWidth(),
                        .y = scores,
                        .y_stride = ScoreStride(head.shape)});
}

// result[query] = sum over the keys of scores[query, key - first] * right[key], with right in panels.
void SumOverKeys(const KeyHead& head, const QueryBlock& block, const float* scores, const float* panels,
                 float* result) {
  const int64_t size = head.shape.head_size, width = PanelWidth();
  for (int64_t key = 0; key < block.keys(); key += kPanelDepth) {
    Multiply(PanelProduct{.rows = block.count,
                          .columns = size,
                          .depth = std::min(kPanelDepth, block.keys() - key),
                          .a = scores + key,
                          .a_row_stride = ScoreStride(head.shape),
                          .panels = panels + (block.first + key) * width,
                          .panel_stride = head.shape.sequence * width,
                          .before = key == 0 ? nullptr : result,
                          .before_stride = size,
                          .y = result,
                          .y_stride = size});
  }
}

// result[key] += sum over the queries of scores[query, key - first] * right[query], with right in panels.
void AddOverQueries(const KeyHead& head, const QueryBlock& block, const float* scores, const float* panels,
                    float* result) {
  const int64_t size = head.shape.head_size;
  float* y = result + block.first * size;
  Multiply(PanelProduct{.rows = block.keys(),
                        .columns = size,
                        .depth = block.count,
                        .a = scores,
                        .a_row_stride = 1,
                        .a_depth_stride = ScoreStride(head.shape),
                        .panels = panels,
                        .panel_stride = kQueries * PanelWidth(),
                        .before = y,
                        .before_stride = size,
                        .y = y,
                        .y_stride = size});
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

struct ForwardScratch {
  ForwardScratch(const AttentionShape& shape, std::byte* memory) {
    Pieces pieces(memory);
    keys = pieces.Take<float>(PanelFloats(shape.head_size, shape.sequence));
    values = pieces.Take<float>(PanelFloats(shape.sequence, shape.head_size));
    queries = pieces.Take<float>(kQueries * shape.head_size);
    results = pieces.Take<float>(kQueries * shape.head_size);
    scores = pieces.Take<float>(kQueries * ScoreStride(shape));
    bytes = pieces.bytes();
  }
  float *keys, *values, *queries, *results, *scores;
  int64_t bytes;
};

template <class T>
void ForwardBlock(const AttentionForwardArgs& args, const KeyHead& head, int64_t query_head, const QueryBlock& block,
                  const ForwardScratch& s) {
  const int64_t size = head.shape.head_size;
  const Extent extent{block.count, size};
  ConvertRows(extent, Block<const T>{args.qkv.as<T>() + head.QkvAt(block.begin, query_head), head.width()},
              Block<float>{s.queries, size});
  MultiplyByKeys(head, block, s.queries, s.keys, s.scores);
  float inverse[kQueries];
  for (int64_t i = 0; i < block.count; ++i) {
    const ScoreRow row = block.Row(head, i, s.scores + i * ScoreStride(head.shape));
    const SoftmaxSum softmax = Exponentiate(row, head.shape.scale);
    inverse[i] = 1.0f / softmax.sum;
    args.lse.as<float>()[head.LseAt(block.begin + i, query_head)] = softmax.max + std::log(softmax.sum);
  }
  SumOverKeys(head, block, s.scores, s.values, s.results);
  for (int64_t i = 0; i < block.count; ++i) Scale(size, inverse[i], s.results + i * size);
  ConvertRows(extent, Block<const float>{s.results, size},
              Block<T>{args.y.as<T>() + head.YAt(block.begin, query_head), head.shape.heads * size});
}

template <class T>
void ForwardHead(const AttentionForwardArgs& args, const KeyHead& head) {
  const int64_t bytes = ForwardScratch(head.shape, nullptr).bytes;
  const ForwardScratch s(head.shape, ThreadScratch(ScratchSlot::kOperation, bytes));
  PackForProducts(head, args.qkv.as<const T>(), head.key_part(), s.keys);
  PackForSums(head, args.qkv.as<const T>(), head.value_part(), s.values);
  for (int64_t i = 0; i < head.group(); ++i) {
    for (int64_t t = 0; t < head.shape.sequence; t += kQueries) {
      ForwardBlock<T>(args, head, head.query_head(i), QueryBlock(head, t), s);
    }
  }
}

struct BackwardScratch {
  BackwardScratch(const AttentionShape& shape, std::byte* memory) {
    Pieces pieces(memory);
    key_products = pieces.Take<float>(PanelFloats(shape.head_size, shape.sequence));
    value_products = pieces.Take<float>(PanelFloats(shape.head_size, shape.sequence));
    key_sums = pieces.Take<float>(PanelFloats(shape.sequence, shape.head_size));
    dk = pieces.Take<float>(shape.sequence * shape.head_size);
    dv = pieces.Take<float>(shape.sequence * shape.head_size);
    for (float** rows : {&queries, &y, &dy, &dq}) *rows = pieces.Take<float>(kQueries * shape.head_size);
    query_panels = pieces.Take<float>(PanelFloats(kQueries, shape.head_size));
    dy_panels = pieces.Take<float>(PanelFloats(kQueries, shape.head_size));
    p = pieces.Take<float>(kQueries * ScoreStride(shape));
    ds = pieces.Take<float>(kQueries * ScoreStride(shape));
    bytes = pieces.bytes();
  }
  float *key_products, *value_products, *key_sums;  // panels over all keys
  float *dk, *dv;                                   // [T, D]
  float *queries, *y, *dy, *dq;                     // [kQueries, D]
  float *query_panels, *dy_panels;                  // [kQueries, D] in panels
  float *p, *ds;                                    // [kQueries, T]: probabilities, gradient of the scores
  int64_t bytes;
};

template <class T>
void BackwardBlock(const AttentionBackwardArgs& args, const KeyHead& head, int64_t query_head, const QueryBlock& block,
                   const BackwardScratch& s) {
  const int64_t size = head.shape.head_size, stride = ScoreStride(head.shape);
  const int64_t y_stride = head.shape.heads * size, panel_stride = kQueries * PanelWidth();
  const Extent extent{block.count, size};
  const int64_t qkv_at = head.QkvAt(block.begin, query_head), y_at = head.YAt(block.begin, query_head);
  ConvertRows(extent, Block<const T>{args.qkv.as<T>() + qkv_at, head.width()}, Block<float>{s.queries, size});
  ConvertRows(extent, Block<const T>{args.y.as<T>() + y_at, y_stride}, Block<float>{s.y, size});
  ConvertRows(extent, Block<const T>{args.dy.as<T>() + y_at, y_stride}, Block<float>{s.dy, size});
  PackPanels(block.count, size, PanelSource<float>{s.queries, size, 1}, s.query_panels, panel_stride);
  PackPanels(block.count, size, PanelSource<float>{s.dy, size, 1}, s.dy_panels, panel_stride);

  MultiplyByKeys(head, block, s.queries, s.key_products, s.p);
  MultiplyByKeys(head, block, s.dy, s.value_products, s.ds);
  for (int64_t i = 0; i < block.count; ++i) {
    const float lse = args.lse.as<float>()[head.LseAt(block.begin + i, query_head)];
    Probabilities(block.Row(head, i, s.p + i * stride), head.shape.scale, lse);
    // The mean of dp under p is dy . y, since y = p . values.
    const float mean = Dot(size, s.dy + i * size, s.y + i * size);
    ScoreGradient(block.keys(), s.p + i * stride, mean, head.shape.scale, s.ds + i * stride);
  }
  AddOverQueries(head, block, s.p, s.dy_panels, s.dv);
  AddOverQueries(head, block, s.ds, s.query_panels, s.dk);
  SumOverKeys(head, block, s.ds, s.key_sums, s.dq);
  ConvertRows(extent, Block<const float>{s.dq, size}, Block<T>{args.dqkv.as<T>() + qkv_at, head.width()});
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
      BackwardBlock<T>(args, head, head.query_head(i), QueryBlock(head, t), s);
    }
  }
  const auto store = [&](const float* gradient, int64_t part) {
    ConvertRows({sequence, size}, Block<const float>{gradient, size},
                Block<T>{args.dqkv.as<T>() + head.QkvAt(0, part), head.width()});
  };
  store(s.dk, head.key_part());
  store(s.dv, head.value_part());
}

void CheckShape(const AttentionShape& shape, const TensorView& qkv, const TensorView& first_key) {
  CHECK(shape.rows > 0 && shape.sequence > 0 && shape.kv_heads > 0 && shape.head_size > 0);
  CHECK_EQ(shape.heads % shape.kv_heads, 0) << "heads " << shape.heads << ", key heads " << shape.kv_heads;
  const int64_t tokens = shape.rows * shape.sequence;
  CheckCompute("qkv", qkv);
  CheckMatrix("qkv", qkv, tokens, (shape.heads + 2 * shape.kv_heads) * shape.head_size, qkv.dtype);
  if (first_key) CheckVector("first_key", first_key, tokens, DType::kI32);
}

}  // namespace

void AttentionForward(Team& team, const AttentionForwardArgs& args) {
  const AttentionShape& shape = args.shape;
  CheckShape(shape, args.qkv, args.first_key);
  CheckMatrix("y", args.y, shape.rows * shape.sequence, shape.heads * shape.head_size, args.qkv.dtype);
  CheckVector("lse", args.lse, shape.rows * shape.heads * shape.sequence, DType::kF32);
  if (args.qkv.dtype == DType::kBF16 && tiles::Available()) return tiles::AttentionForward(team, args);
  ForEachKeyHead(team, shape, args.first_key, [&](const KeyHead& head) {
    args.qkv.dtype == DType::kBF16 ? ForwardHead<BFloat16>(args, head) : ForwardHead<float>(args, head);
  });
}

void AttentionBackward(Team& team, const AttentionBackwardArgs& args) {
  const AttentionShape& shape = args.shape;
  CheckShape(shape, args.qkv, args.first_key);
  for (const auto& [name, view] : {std::pair("y", args.y), std::pair("dy", args.dy)}) {
    CheckMatrix(name, view, shape.rows * shape.sequence, shape.heads * shape.head_size, args.qkv.dtype);
  }
  CheckVector("lse", args.lse, shape.rows * shape.heads * shape.sequence, DType::kF32);
  CheckMatrix("dqkv", args.dqkv, args.qkv.rows(), args.qkv.columns(), args.qkv.dtype);
  if (args.qkv.dtype == DType::kBF16 && tiles::Available()) return tiles::AttentionBackward(team, args);
  ForEachKeyHead(team, shape, args.first_key, [&](const KeyHead& head) {
    args.qkv.dtype == DType::kBF16 ? BackwardHead<BFloat16>(args, head) : BackwardHead<float>(args, head);
  });
}

}  // namespace sluice::cpu
