#include "stages/layer_cost.h"

#include <cmath>

namespace sluice {
namespace {

// Sizes of one call as doubles, so that products don't overflow.
struct Sizes {
  double rows, sequence, tokens;
  double outside;  // tokens that enter and leave the layer: all, or this shard's slice
  double element;  // bytes of an activation's element
  double shards;
};

OperationCost Product(double flops, double bytes) { return {flops, bytes, bytes, 1}; }
OperationCost Pass(double bytes) { return {0, bytes, 0, 1}; }  // over memory

// y[M,N] = x[M,K] . weight^T; the gradient of the weight is f32 and is added to.
LayerCost Linear(const Sizes& s, double n, double k, double output_bytes) {
  const double flops = 2 * s.tokens * n * k, x = s.element * s.tokens * k, weight = s.element * n * k;
  const double dy = s.element * s.tokens * n;
  return {.forward = Product(flops, x + weight + output_bytes * s.tokens * n),
          .input_gradient = Product(flops, dy + weight + x),
          .weight_gradient = Product(flops, dy + x + 8 * n * k)};
}

LayerCost Linear(const Sizes& s, double n, double k) { return Linear(s, n, k, s.element); }

LayerCost Norm(const Sizes& s, double channels) {
  const double activation = s.element * s.outside * channels;
  return {
      .forward = Pass(2 * activation), .input_gradient = Pass(4 * activation), .weight_gradient = Pass(2 * activation)};
}

// Scores and their product with the values; backward has five products of that size in place of two.
LayerCost AttentionCore(const Sizes& s, const Node& node) {
  const double heads = node.heads, size = node.head_size, kv = node.kv_heads;
  const double flops = 2 * s.rows * heads * size * s.sequence * (s.sequence + 1);
  const double qkv = s.element * s.tokens * (heads + 2 * kv) * size, y = s.element * s.tokens * heads * size;
  LayerCost cost{.forward = Product(flops, qkv + y), .input_gradient = Product(2.5 * flops, 2 * qkv + 2 * y)};
  if (node.rope_theta > 0) {
    const OperationCost rope = Pass(2 * s.element * s.tokens * (heads + kv) * size);
    cost.forward += rope;
    cost.input_gradient += rope;
  }
  return cost;
}

// y = x + dropout(x'): reads, writes and the mask drawn again on the way back.
LayerCost Dropout(const Sizes& s, const Node& node) {
  if (node.dropout == 0) return {};
  const double activation = s.element * s.outside * static_cast<double>(node.channels);
  return {.forward = Pass(3 * activation), .input_gradient = Pass(2 * activation)};
}

// A sum over the shards: each reads all parts of its share of the tokens.
OperationCost SumOverShards(const Sizes& s, double channels) {
  return s.shards == 1 ? OperationCost{} : Pass(s.element * s.tokens * channels * (1 + 1 / s.shards));
}

// The last product of a block reads it.
void AddResidual(const Sizes& s, double channels, OperationCost* forward) {
  forward->bytes += s.element * s.outside * channels;
  forward->product_bytes += s.element * s.outside * channels;
}

LayerCost Sum(const LayerCost& a, const LayerCost& b) {
  return {.forward = a.forward + b.forward,
          .input_gradient = a.input_gradient + b.input_gradient,
          .weight_gradient = a.weight_gradient + b.weight_gradient};
}

LayerCost Attention(const Sizes& s, const Node& node) {
  const double inner = static_cast<double>(node.heads * node.head_size);
  const double qkv = static_cast<double>((node.heads + 2 * node.kv_heads) * node.head_size);
  const double channels = static_cast<double>(node.channels);
  const LayerCost norm = Norm(s, channels), in = Linear(s, qkv, channels), core = AttentionCore(s, node);
  LayerCost cost = Sum(Sum(norm, in), Sum(core, Sum(Linear(s, channels, inner), Dropout(s, node))));
  AddResidual(s, channels, &cost.forward);
  cost.forward += SumOverShards(s, channels);
  cost.input_gradient += SumOverShards(s, channels);
  cost.recompute_selective = norm.forward;
  cost.recompute_full = norm.forward + in.forward + core.forward;
  return cost;
}

LayerCost Mlp(const Sizes& s, const Node& node) {
  const double width = static_cast<double>(node.width), channels = static_cast<double>(node.channels);
  const double in_width = (node.activation == Activation::kSwiglu ? 2 : 1) * width;
  const LayerCost norm = Norm(s, channels), in = Linear(s, in_width, channels);
  const LayerCost activation{.forward = Pass(s.element * s.tokens * (in_width + width)),
                             .input_gradient = Pass(s.element * s.tokens * (2 * in_width + width))};
  LayerCost cost = Sum(Sum(norm, in), Sum(activation, Sum(Linear(s, channels, width), Dropout(s, node))));
  AddResidual(s, channels, &cost.forward);
  cost.forward += SumOverShards(s, channels);
  cost.input_gradient += SumOverShards(s, channels);
  cost.recompute_selective = norm.forward + activation.forward;
  cost.recompute_full = norm.forward + in.forward + activation.forward;
  return cost;
}

// A table row is read per token; on the way back the rows are added to.
LayerCost Embedding(const Sizes& s, const Node& node) {
  const double elements = s.tokens * static_cast<double>(node.channels);
  const int tables = node.positions > 0 ? 2 : 1;
  LayerCost cost = Dropout(s, node);
  // A shard finds its part of the tokens in its table.
  cost.forward += Pass((4 * tables / s.shards + s.element) * elements);
  cost.forward += SumOverShards(s, static_cast<double>(node.channels));
  for (int table = 0; table < tables; ++table) {
    cost.weight_gradient += Pass((table == 0 ? 1 / s.shards : 1) * (8 + s.element) * elements);
  }
  return cost;
}

// Chunk by chunk: f32 logits, cross-entropy, and both products of the way back.
LayerCost Head(const Sizes& s, const Node& node) {
  const double vocabulary = static_cast<double>(node.vocabulary), chunks = std::ceil(s.tokens / kHeadRows);
  Sizes chunk = s;
  chunk.tokens /= chunks;  // on average
  const LayerCost linear = Linear(chunk, vocabulary, static_cast<double>(node.channels), 4);
  const OperationCost cross_entropy = Pass((4 + s.element) * chunk.tokens * vocabulary);
  const OperationCost one = linear.forward + cross_entropy + linear.input_gradient + linear.weight_gradient;
  const OperationCost sum = SumOverShards(s, static_cast<double>(node.channels));
  return {.input_gradient = sum + OperationCost{chunks * one.flops, chunks * one.bytes, chunks * one.product_bytes,
                                                chunks * one.operations}};
}

LayerCost ActivationCost(const Sizes& s, const Node& node) {
  const double elements = s.element * s.outside * static_cast<double>(node.channels);
  return {.forward = Pass(2 * elements), .input_gradient = Pass(3 * elements)};
}

}  // namespace

LayerCost Cost(const Node& whole, int64_t rows, int64_t sequence, Precision precision, const TensorParallel& tensor) {
  const Node node = ShardOf(whole, tensor);
  Sizes s{.rows = static_cast<double>(rows), .sequence = static_cast<double>(sequence)};
  s.tokens = s.rows * s.sequence;
  s.outside = tensor.sequence_parallel ? s.tokens / tensor.size : s.tokens;
  s.element = precision == Precision::kF32 ? 4 : 2;
  s.shards = tensor.size;
  const double channels = static_cast<double>(node.channels);
  switch (node.kind) {
    case LayerKind::kEmbedding:
      return Embedding(s, node);
    case LayerKind::kAttention:
      return Attention(s, node);
    case LayerKind::kMlp:
      return Mlp(s, node);
    case LayerKind::kNorm:
      return Norm(s, channels);
    case LayerKind::kLinear:
      s.tokens = s.outside;
      return Linear(s, static_cast<double>(node.width), channels);
    case LayerKind::kActivation:
      return ActivationCost(s, node);
    case LayerKind::kHead:
      return Head(s, node);
  }
  return {};
}

}  // namespace sluice
