#include "kernels/cpu/attention_tiles.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/attention_heads.h"
#include "kernels/cpu/attention_rows.h"
#include "kernels/cpu/attention_tile_rows.h"
#include "kernels/cpu/tile_packing.h"
#include "kernels/cpu/tile_product.h"

namespace sluice::cpu::tiles {
namespace {

constexpr int64_t kQueries = ScoreBlock::kQueries;
// Between rows of scores, so that they don't fall into the same sets of the cache.
constexpr int64_t kPadding = 16;

int64_t Padded(int64_t count) { return Steps(count) * kStep; }

Block<const BFloat16> Part(const KeyHead& head, const TensorView& qkv, int64_t t, int64_t part) {
  return {qkv.as<const BFloat16>() + head.QkvAt(t, part), head.width()};
}

// Queries [begin, end) and the keys [first, first + keys) that any of them attends to, in whole steps.
struct QueryBlock {
  QueryBlock(const KeyHead& head, int64_t begin)
      : begin(begin), count(std::min(kQueries, head.shape.sequence - begin)) {
    int64_t lowest = begin;
    for (int64_t t = begin; t < begin + count; ++t) lowest = std::min(lowest, head.first_of(t));
    first = lowest / kStep * kStep;
    steps = Steps(begin + count - first);
  }
  int64_t begin;
  int64_t count;
  int64_t first;
  int64_t steps;  // of keys

  int64_t keys() const { return steps * kStep; }
  // Elements before the first key in something packed with `per_step` elements for each step of keys.
  int64_t Skip(int64_t per_step) const { return first / kStep * per_step; }
};

struct ForwardScratch {
  ForwardScratch(const AttentionShape& shape, std::byte* memory) {
    Pieces pieces(memory);
    keys = pieces.Take<BFloat16>(PackedElements(shape.sequence, shape.head_size));
    values = pieces.Take<BFloat16>(PackedElements(shape.head_size, shape.sequence));
    queries = pieces.Take<BFloat16>(PackedElements(kQueries, shape.head_size));
    p = pieces.Take<BFloat16>(PackedElements(kQueries, shape.sequence));
    scores = pieces.Take<float>(kQueries * (Padded(shape.sequence) + kPadding));
    results = pieces.Take<float>(kQueries * Padded(shape.head_size));
    sums = pieces.Take<float>(2 * kStepElements);
    bytes = pieces.bytes();
  }
  BFloat16 *keys, *values;  // right-hand: columns are keys; the depth is keys
  BFloat16 *queries, *p;    // left-hand
  float *scores, *results;  // [kQueries, keys] and [kQueries, D]
  float* sums;
  int64_t bytes;
};

void ForwardBlock(const AttentionForwardArgs& args, const KeyHead& head, int64_t query_head, const QueryBlock& block,
                  const ForwardScratch& s) {
  const int64_t size = head.shape.head_size, stride = block.keys() + kPadding, result_stride = Padded(size);
  PackLeft({block.count, size}, Part(head, args.qkv, block.begin, query_head), s.queries);
  Multiply({.rows = Padded(block.count),
            .columns = block.keys(),
            .steps = Steps(size),
            .left = Left::Packed(s.queries, size),
            .right = s.keys + block.Skip(Steps(size) * kStepElements),
            .right_stride = Steps(size) * kStepElements,
            .sums = s.sums,
            .target = {.y = reinterpret_cast<std::byte*>(s.scores), .y_stride = stride}});
  float inverse[kQueries];
  for (int64_t i = 0; i < block.count; ++i) {
    const int64_t t = block.begin + i;
    BFloat16* p = s.p + i / kStep * block.steps * kStepElements + i % kStep * kStep;
    const QueryRow row{s.scores + i * stride, block.steps, head.first_of(t) - block.first, t + 1 - block.first};
    const RowSum softmax = Exponentiate(row, head.shape.scale, p);
    inverse[i] = 1.0f / softmax.sum;
    args.lse.as<float>()[head.LseAt(t, query_head)] = softmax.max + std::log(softmax.sum);
  }
  Multiply({.rows = Padded(block.count),
            .columns = Padded(size),
            .steps = block.steps,
            .left = Left::Packed(s.p, block.keys()),
            .right = s.values + block.Skip(kStepElements),
            .right_stride = Steps(head.shape.sequence) * kStepElements,
            .sums = s.sums,
            .target = {.y = reinterpret_cast<std::byte*>(s.results), .y_stride = result_stride}});
  BFloat16* y = args.y.as<BFloat16>() + head.YAt(block.begin, query_head);
  for (int64_t i = 0; i < block.count; ++i) {
    ScaleRow(size, inverse[i], s.results + i * result_stride, y + i * head.y_width());
  }
}

struct BackwardScratch {
  BackwardScratch(const AttentionShape& shape, std::byte* memory) {
    Pieces pieces(memory);
    const int64_t sequence = shape.sequence, size = shape.head_size;
    for (BFloat16** tiles : {&keys, &values}) *tiles = pieces.Take<BFloat16>(PackedElements(sequence, size));
    keys_transposed = pieces.Take<BFloat16>(PackedElements(size, sequence));
    for (float** sums : {&dk, &dv}) *sums = pieces.Take<float>(SumFloats(sequence, size));
    for (BFloat16** tiles : {&queries, &dy}) *tiles = pieces.Take<BFloat16>(PackedElements(kQueries, size));
    for (BFloat16** tiles : {&queries_depth, &dy_depth}) *tiles = pieces.Take<BFloat16>(PackedElements(size, kQueries));
    for (float** rows : {&scores, &dp}) *rows = pieces.Take<float>(Padded(sequence) * kQueries);
    for (BFloat16** tiles : {&p, &ds, &ds_right}) *tiles = pieces.Take<BFloat16>(PackedElements(sequence, kQueries));
    dq = pieces.Take<float>(Padded(size) * kQueries);
    sums = pieces.Take<float>(2 * kStepElements);
    bytes = pieces.bytes();
  }
  BFloat16 *keys, *values;             // left-hand: rows are keys
  BFloat16* keys_transposed;           // left-hand: the depth is keys
  float *dk, *dv;                      // sums, [T, D]
  BFloat16 *queries, *dy;              // right-hand: columns are queries
  BFloat16 *queries_depth, *dy_depth;  // right-hand: the depth is queries
  float *scores, *dp;                  // [keys, kQueries]
  BFloat16 *p, *ds, *ds_right;         // see ScoreBlock
  float* dq;                           // [D, kQueries]
  float* sums;
  int64_t bytes;
};

// to[key, query] = keys or values . queries or dy.
void MultiplyByKeys(const KeyHead& head, const QueryBlock& block, const BFloat16* left, const BFloat16* right,
                    float* sums, float* to) {
  const int64_t size = head.shape.head_size;
  Multiply({.rows = block.keys(),
            .columns = Padded(block.count),
            .steps = Steps(size),
            .left = Left::Packed(left + block.Skip(Steps(size) * kStepElements), size),
            .right = right,
            .right_stride = Steps(size) * kStepElements,
            .sums = sums,
            .target = {.y = reinterpret_cast<std::byte*>(to), .y_stride = kQueries}});
}

// sums[key, :] += sum over the queries of left[key, query] * right[query, :].
void AddOverQueries(const KeyHead& head, const QueryBlock& block, const BFloat16* left, const BFloat16* right,
                    float* sums) {
  const int64_t size = head.shape.head_size;
  Multiply({.rows = block.keys(),
            .columns = size,
            .steps = Steps(block.count),
            .left = Left::Packed(left, block.count),
            .right = right,
            .right_stride = Steps(block.count) * kStepElements,
            .sums = sums + block.Skip(Steps(size) * kStepElements),
            .first = false,
            .last = false});
}

// dq of the block's queries: the sum over the keys of ds * keys, whose transpose is what is multiplied.
void QueryGradients(const AttentionBackwardArgs& args, const KeyHead& head, int64_t query_head, const QueryBlock& block,
                    const BackwardScratch& s) {
  const int64_t size = head.shape.head_size;
  Left keys = Left::Packed(s.keys_transposed + block.Skip(kStepElements), head.shape.sequence);
  Multiply({.rows = Padded(size),
            .columns = Padded(block.count),
            .steps = block.steps,
            .left = keys,
            .right = s.ds_right,
            .right_stride = block.steps * kStepElements,
            .sums = s.sums,
            .target = {.y = reinterpret_cast<std::byte*>(s.dq), .y_stride = kQueries}});
  TransposeRows({block.count, size}, s.dq, kQueries,
                {args.dqkv.as<BFloat16>() + head.QkvAt(block.begin, query_head), head.width()});
}

void BackwardBlock(const AttentionBackwardArgs& args, const KeyHead& head, int64_t query_head, const QueryBlock& block,
                   const BackwardScratch& s) {
  const int64_t size = head.shape.head_size;
  const Extent extent{block.count, size};
  const Block<const BFloat16> queries = Part(head, args.qkv, block.begin, query_head);
  const int64_t y_at = head.YAt(block.begin, query_head);
  const Block<const BFloat16> dy{args.dy.as<const BFloat16>() + y_at, head.y_width()};
  PackRightTransposed(extent, queries, s.queries);
  PackRightTransposed(extent, dy, s.dy);
  PackRight(extent, queries, s.queries_depth);
  PackRight(extent, dy, s.dy_depth);
  MultiplyByKeys(head, block, s.keys, s.queries, s.sums, s.scores);
  MultiplyByKeys(head, block, s.values, s.dy, s.sums, s.dp);

  alignas(64) float lse[kQueries] = {}, mean[kQueries] = {};
  for (int64_t i = 0; i < block.count; ++i) {
    lse[i] = args.lse.as<float>()[head.LseAt(block.begin + i, query_head)];
    // The mean of dp under p is dy . y, since y = p . values.
    mean[i] = Dot(size, dy.data + i * dy.stride, args.y.as<const BFloat16>() + y_at + i * dy.stride);
  }
  Gradients({.keys = block.keys(),
             .first = block.first,
             .query = block.begin,
             .queries = block.count,
             .first_key = head.first_key == nullptr ? nullptr : head.first_key + block.begin,
             .scale = head.shape.scale,
             .scores = s.scores,
             .dp = s.dp,
             .lse = lse,
             .mean = mean,
             .p = s.p,
             .ds = s.ds,
             .ds_right = s.ds_right,
             .ds_right_stride = block.steps * kStepElements});
  AddOverQueries(head, block, s.p, s.dy_depth, s.dv);
  AddOverQueries(head, block, s.ds, s.queries_depth, s.dk);
  QueryGradients(args, head, query_head, block, s);
}

// Calls body for each block of queries of each query head that shares the key head, after fetch(query head, its first
// query, how many) for the block after it.
template <class FetchNext, class Body>
void ForEachQueryBlock(const KeyHead& head, FetchNext fetch, Body body) {
  for (int64_t i = 0; i < head.group(); ++i) {
    for (int64_t t = 0; t < head.shape.sequence; t += kQueries) {
      const int64_t next = t + kQueries;
      if (next < head.shape.sequence) fetch(head.query_head(i), next, std::min(kQueries, head.shape.sequence - next));
      body(head.query_head(i), QueryBlock(head, t));
    }
  }
}

// Fetches what a thread alone packs first of the key head after this one; with helpers that head is another thread's.
void FetchNextHead(const Team& team, const KeyHead& head, const TensorView& qkv) {
  if (team.size() > 1 || head.head + 1 == head.shape.kv_heads) return;
  const Extent all{head.shape.sequence, head.shape.head_size};
  for (const int64_t part : {head.key_part(), head.value_part()}) Fetch(all, Part(head, qkv, 0, part + 1));
  Fetch({std::min(kQueries, all.rows), all.columns}, Part(head, qkv, 0, head.query_head(head.group())));
}

template <class Scratch>
Scratch MakeScratch(const AttentionShape& shape) {
  return Scratch(shape, ThreadScratch(ScratchSlot::kOperation, Scratch(shape, nullptr).bytes));
}

}  // namespace

void AttentionForward(Team& team, const AttentionForwardArgs& args) {
  ForEachKeyHead(team, args.shape, args.first_key, [&](const KeyHead& head) {
    const Session session;
    const auto s = MakeScratch<ForwardScratch>(args.shape);
    const Extent all{args.shape.sequence, args.shape.head_size};
    PackRightTransposed(all, Part(head, args.qkv, 0, head.key_part()), s.keys);
    PackRight(all, Part(head, args.qkv, 0, head.value_part()), s.values);
    FetchNextHead(team, head, args.qkv);
    ForEachQueryBlock(
        head,
        [&](int64_t query_head, int64_t t, int64_t count) {
          Fetch({count, all.columns}, Part(head, args.qkv, t, query_head));
          Fetch({count, all.columns}, {args.y.as<const BFloat16>() + head.YAt(t, query_head), head.y_width()});
        },
        [&](int64_t query_head, const QueryBlock& block) { ForwardBlock(args, head, query_head, block, s); });
  });
}

void AttentionBackward(Team& team, const AttentionBackwardArgs& args) {
  ForEachKeyHead(team, args.shape, args.first_key, [&](const KeyHead& head) {
    const Session session;
    const auto s = MakeScratch<BackwardScratch>(args.shape);
    const Extent all{args.shape.sequence, args.shape.head_size};
    const Block<const BFloat16> keys = Part(head, args.qkv, 0, head.key_part());
    PackLeft(all, keys, s.keys);
    PackLeft(all, Part(head, args.qkv, 0, head.value_part()), s.values);
    PackLeftTransposed(all, keys, s.keys_transposed);
    FetchNextHead(team, head, args.qkv);
    for (float* sums : {s.dk, s.dv}) std::fill_n(sums, SumFloats(all.rows, all.columns), 0.0f);
    for (const int64_t part : {head.key_part(), head.value_part()}) Fetch(all, Part(head, args.dqkv, 0, part));
    ForEachQueryBlock(
        head,
        [&](int64_t query_head, int64_t t, int64_t count) {
          for (const TensorView& of : {args.qkv, args.dqkv}) Fetch({count, all.columns}, Part(head, of, t, query_head));
          for (const TensorView& of : {args.y, args.dy}) {
            Fetch({count, all.columns}, {of.as<const BFloat16>() + head.YAt(t, query_head), head.y_width()});
          }
        },
        [&](int64_t query_head, const QueryBlock& block) { BackwardBlock(args, head, query_head, block, s); });
    const auto store = [&](const float* sums, int64_t part) {
      StoreSums(all, sums, {args.dqkv.as<BFloat16>() + head.QkvAt(0, part), head.width()});
    };
    store(s.dk, head.key_part());
    store(s.dv, head.value_part());
  });
}

}  // namespace sluice::cpu::tiles
