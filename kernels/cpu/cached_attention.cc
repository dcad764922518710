#include "kernels/cpu/cached_attention.h"

#include <algorithm>

#include "kernels/cpu/attention_heads.h"
#include "kernels/cpu/attention_rows.h"
#include "kernels/cpu/matrix_rows.h"
#include "kernels/cpu/panel_product.h"
#include "kernels/operation_check.h"

namespace sluice::cpu {
namespace {

// Between rows of scores, so that they don't fall into the same sets of the cache.
constexpr int64_t kPadding = 16;

// Keys and values of one sequence and key head: the keys in panels of keys, [D, keys], for products with each of them,
// the values in panels of columns, [keys, D], for sums over them.
struct HeadCache {
  static int64_t Keys(const CacheShape& shape) {
    return (shape.context + PanelWidth() - 1) / PanelWidth() * PanelWidth();
  }
  static int64_t KeyFloats(const CacheShape& shape) { return PanelFloats(shape.head_size, Keys(shape)); }
  static int64_t Floats(const CacheShape& shape) {
    return KeyFloats(shape) + PanelFloats(Keys(shape), shape.head_size);
  }

  HeadCache(const CachedAttentionArgs& args, int64_t sequence, int64_t head)
      : size(args.shape.head_size),
        value_stride(Keys(args.shape) * PanelWidth()),
        keys(args.cache.as<float>() + (sequence * args.shape.kv_heads + head) * Floats(args.shape)),
        values(keys + KeyFloats(args.shape)) {}

  template <class T>
  void Put(int64_t position, const T* key, const T* value) const {
    const int64_t width = PanelWidth();
    float* to = keys + position / width * size * width + position % width;
    for (int64_t d = 0; d < size; ++d) to[d * width] = AsFloat(key[d]);
    for (int64_t d = 0; d < (size + width - 1) / width * width; ++d) {
      values[d / width * value_stride + position * width + d % width] = d < size ? AsFloat(value[d]) : 0.0f;
    }
  }

  static float AsFloat(float value) { return value; }
  static float AsFloat(BFloat16 value) { return ToFloat(value); }

  int64_t size;
  int64_t value_stride;  // between panels
  float* keys;
  float* values;
};

// Tokens [begin, end) of the call and one key head.
struct TokenHead {
  int64_t begin;
  int64_t end;
  int64_t head;
};

// Of queries and results: [rows, D]; of scores: [rows, keys], whole panels.
struct Scratch {
  Scratch(const CacheShape& shape, int64_t rows, std::byte* memory) : stride(HeadCache::Keys(shape) + kPadding) {
    Pieces pieces(memory);
    queries = pieces.Take<float>(rows * shape.head_size);
    results = pieces.Take<float>(rows * shape.head_size);
    scores = pieces.Take<float>(rows * stride);
    ranges = pieces.Take<ScoreRange>(rows);
    softmax = pieces.Take<SoftmaxSum>(rows);
    bytes = pieces.bytes();
  }
  int64_t stride;
  float *queries, *results, *scores;
  ScoreRange* ranges;
  SoftmaxSum* softmax;
  int64_t bytes;
};

int64_t Group(const CacheShape& shape) { return shape.heads / shape.kv_heads; }
// The queries of so many tokens fill a tile of the products.
int64_t TokensOfTile(const CacheShape& shape) { return std::max<int64_t>(1, TileRows() / Group(shape)); }

template <class T>
const T* Part(const CachedAttentionArgs& args, int64_t token, int64_t part) {
  return args.qkv.as<const T>() + token * args.qkv.columns() + part * args.shape.head_size;
}

template <class T>
void PutKeys(const CachedAttentionArgs& args, const TokenHead& tokens) {
  const CacheShape& shape = args.shape;
  for (int64_t token = tokens.begin; token < tokens.end; ++token) {
    const int32_t sequence = args.sequences.as<int32_t>()[token], position = args.positions.as<int32_t>()[token];
    CHECK(sequence >= 0 && sequence < shape.sequences) << "sequence " << sequence << " of " << shape.sequences;
    CHECK(position >= 0 && position < shape.context) << "position " << position << " of " << shape.context;
    HeadCache(args, sequence, tokens.head)
        .Put(position, Part<T>(args, token, shape.heads + tokens.head),
             Part<T>(args, token, shape.heads + shape.kv_heads + tokens.head));
  }
}

// Tokens of one sequence: the queries of a token stand side by side.
template <class T>
void Attend(const CachedAttentionArgs& args, const TokenHead& tokens, const Scratch& s) {
  const CacheShape& shape = args.shape;
  const int64_t size = shape.head_size, group = Group(shape), rows = (tokens.end - tokens.begin) * group;
  const HeadCache cache(args, args.sequences.as<int32_t>()[tokens.begin], tokens.head);
  int64_t keys = 0;
  for (int64_t token = tokens.begin, row = 0; token < tokens.end; ++token, row += group) {
    const int64_t end = args.positions.as<int32_t>()[token] + 1;
    keys = std::max(keys, end);
    ConvertRows({group, size}, Block<const T>{Part<T>(args, token, tokens.head * group), size},
                Block<float>{s.queries + row * size, size});
    std::fill_n(s.ranges + row, group, ScoreRange{0, end});
  }
  Multiply({.rows = rows,
            .columns = (keys + PanelWidth() - 1) / PanelWidth() * PanelWidth(),
            .depth = size,
            .a = s.queries,
            .a_row_stride = size,
            .panels = cache.keys,
            .panel_stride = size * PanelWidth(),
            .y = s.scores,
            .y_stride = s.stride});
  Exponentiate({rows, keys, s.ranges, s.scores, s.stride}, shape.scale, s.softmax);
  Multiply({.rows = rows,
            .columns = size,
            .depth = keys,
            .a = s.scores,
            .a_row_stride = s.stride,
            .panels = cache.values,
            .panel_stride = cache.value_stride,
            .y = s.results,
            .y_stride = size});
  for (int64_t row = 0; row < rows; ++row) {
    T* y =
        args.y.as<T>() + (tokens.begin + row / group) * args.y.columns() + (tokens.head * group + row % group) * size;
    Scale(size, 1.0f / s.softmax[row].sum, s.results + row * size, y);
  }
}

template <class T>
void AttendToEach(const CachedAttentionArgs& args, const TokenHead& tokens) {
  const int64_t rows = TokensOfTile(args.shape) * Group(args.shape);
  const int64_t bytes = Scratch(args.shape, rows, nullptr).bytes;
  const Scratch scratch(args.shape, rows, ThreadScratch(ScratchSlot::kOperation, bytes));
  const int32_t* sequences = args.sequences.as<int32_t>();
  for (int64_t begin = tokens.begin, end; begin < tokens.end; begin = end) {
    for (end = begin + 1; end < tokens.end && sequences[end] == sequences[begin];) ++end;
    Attend<T>(args, {begin, end, tokens.head}, scratch);
  }
}

template <class T>
void Run(Team& team, const CachedAttentionArgs& args) {
  const int64_t count = args.qkv.rows(), heads = args.shape.kv_heads, tile = TokensOfTile(args.shape);
  const auto tokens_of = [&](int64_t block) {
    const int64_t begin = block / heads * tile;
    return TokenHead{begin, std::min(count, begin + tile), block % heads};
  };
  const int64_t blocks = (count + tile - 1) / tile * heads;
  team.ParallelFor(blocks, [&](int64_t block) { PutKeys<T>(args, tokens_of(block)); });
  team.ParallelFor(blocks, [&](int64_t block) { AttendToEach<T>(args, tokens_of(block)); });
}

}  // namespace

int64_t KeyValueCacheBytes(const CacheShape& shape) {
  return shape.sequences * shape.kv_heads * HeadCache::Floats(shape) * static_cast<int64_t>(sizeof(float));
}

void CachedAttention(Team& team, const CachedAttentionArgs& args) {
  CheckArguments(args);
  CHECK_GE(args.cache.bytes(), KeyValueCacheBytes(args.shape));
  args.qkv.dtype == DType::kBF16 ? Run<BFloat16>(team, args) : Run<float>(team, args);
}

}  // namespace sluice::cpu
