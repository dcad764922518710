// x + dropout(projection(attention(rope(qkv(norm(x)))))). The queries, keys and values of a token are one fused linear,
// in the order that AttentionForward takes: H query heads, G key heads, G value heads. A shard has its share of each.
#include <cmath>

#include "stages/layers/parts.h"
#include "stages/layers/registry.h"

namespace sluice {
namespace {

class AttentionLayer final : public Layer {
 public:
  AttentionLayer(const Node& node, DType compute, const TensorParallel& tensor)
      : node_(ShardOf(node, tensor)),
        compute_(compute),
        ends_(node.channels, compute, tensor),
        norm_(node),
        qkv_(QkvColumns(), node.channels, compute, norm_.parameters(), BiasIf(node.bias)),
        residual_(node, MixedColumns(), compute, norm_.parameters() + qkv_.parameters(), tensor) {}

  std::vector<LayerTensor> Tensors() const override {
    std::vector<LayerTensor> tensors(kTensors);
    tensors[kMean] = norm_.Mean(Lifetime::kSaved);
    tensors[kRstd] = norm_.Rstd(Lifetime::kSaved);
    tensors[kNormed] = {Lifetime::kCheap, compute_, node_.channels};
    tensors[kQkv] = {Lifetime::kSaved, compute_, QkvColumns()};
    tensors[kMixed] = {Lifetime::kSaved, compute_, MixedColumns()};
    tensors[kLse] = {Lifetime::kSaved, DType::kF32, node_.heads};
    tensors[kDprojected] = residual_.Dprojected();
    tensors[kDmixed] = {Lifetime::kScratch, compute_, MixedColumns()};
    tensors[kDqkv] = {Lifetime::kGradient, compute_, QkvColumns()};
    tensors[kDnormed] = {Lifetime::kGradient, compute_, node_.channels, TensorRows::kSlice};
    tensors[kPartial] = ends_.Partial();
    tensors[kExchange] = ends_.Exchange();
    return tensors;
  }

  void Forward(const LayerCall& call) const override {
    RecomputeCheap(call);
    qkv_.Forward(call, call.tensors[kNormed], {}, call.tensors[kQkv]);
    Rope(call, call.tensors[kQkv], Direction::kForward);
    Attend(call);
    residual_.Forward(call, call.tensors[kMixed], call.tensors[kPartial], call.tensors[kExchange]);
  }

  void RecomputeCheap(const LayerCall& call) const override {
    norm_.Forward(call, call.tensors[kMean], call.tensors[kRstd], ends_.Outside(call, call.tensors[kNormed]));
    ends_.Gather(call, call.tensors[kNormed]);
  }

  void InputGradient(const LayerCall& call) const override {
    residual_.InputGradient(call, call.tensors[kDprojected], call.tensors[kDmixed]);
    call.operations.AttentionBackward(call.stream, {.shape = ShapeOf(call),
                                                    .qkv = call.tensors[kQkv],
                                                    .first_key = call.batch.first_key,
                                                    .y = call.tensors[kMixed],
                                                    .lse = Lse(call),
                                                    .dy = call.tensors[kDmixed],
                                                    .dqkv = call.tensors[kDqkv]});
    Rope(call, call.tensors[kDqkv], Direction::kInverse);
    const TensorView dnormed = call.tensors[kDnormed], partial = call.tensors[kPartial];
    qkv_.InputGradient(call, call.tensors[kDqkv], ends_.PartialOf(dnormed, partial));
    ends_.Reduce(call, dnormed, partial, call.tensors[kExchange]);
    if (!call.dx) return;
    norm_.InputGradient(call, call.tensors[kMean], call.tensors[kRstd], dnormed, call.dy);
  }

  void WeightGradient(const LayerCall& call) const override {
    residual_.WeightGradient(call, call.tensors[kMixed], call.tensors[kDprojected]);
    qkv_.WeightGradient(call, call.tensors[kNormed], call.tensors[kDqkv]);
    norm_.WeightGradient(call, call.tensors[kMean], call.tensors[kRstd], call.tensors[kDnormed]);
  }

 private:
  enum Tensor {
    kMean,
    kRstd,
    kNormed,
    kQkv,
    kMixed,
    kLse,
    kDprojected,
    kDmixed,
    kDqkv,
    kDnormed,
    kPartial,
    kExchange,
    kTensors
  };
  static_assert(kTensors <= kMaxLayerTensors);

  int64_t QkvColumns() const { return (node_.heads + 2 * node_.kv_heads) * node_.head_size; }
  int64_t MixedColumns() const { return node_.heads * node_.head_size; }

  AttentionShape ShapeOf(const LayerCall& call) const {
    return {.rows = call.rows,
            .sequence = call.sequence,
            .heads = node_.heads,
            .kv_heads = node_.kv_heads,
            .head_size = node_.head_size,
            .scale = 1.0f / std::sqrt(static_cast<float>(node_.head_size))};
  }

  void Attend(const LayerCall& call) const {
    if (const CacheViews& cache = call.cache; cache.keys_and_values) {
      return call.operations.CachedAttention(call.stream,
                                             {.shape = CacheShapeOf(node_, compute_, cache.sequences, cache.context),
                                              .qkv = call.tensors[kQkv],
                                              .sequences = call.batch.sequences,
                                              .positions = call.batch.positions,
                                              .cache = cache.keys_and_values,
                                              .y = call.tensors[kMixed]});
    }
    call.operations.AttentionForward(call.stream, {.shape = ShapeOf(call),
                                                   .qkv = call.tensors[kQkv],
                                                   .first_key = call.batch.first_key,
                                                   .y = call.tensors[kMixed],
                                                   .lse = Lse(call)});
  }

  TensorView Lse(const LayerCall& call) const {
    TensorView view = call.tensors[kLse];
    view.shape = {call.rows, node_.heads, call.sequence};
    return view;
  }

  void Rope(const LayerCall& call, TensorView qkv, Direction direction) const {
    if (node_.rope_theta == 0) return;
    call.operations.Rope(call.stream, {.shape = ShapeOf(call),
                                       .theta = node_.rope_theta,
                                       .scaling = {.factor = node_.rope_factor,
                                                   .low_turns = node_.rope_low_turns,
                                                   .high_turns = node_.rope_high_turns,
                                                   .positions = node_.rope_positions},
                                       .direction = direction,
                                       .qkv = qkv,
                                       .positions = call.batch.positions});
  }

  const Node node_;
  const DType compute_;
  const SplitEnds ends_;
  const NormPart norm_;
  const LinearPart qkv_;
  const ResidualPart residual_;
};

}  // namespace

CacheShape CacheShapeOf(const Node& shard, DType compute, int64_t sequences, int64_t context) {
  return {.sequences = sequences,
          .context = context,
          .heads = shard.heads,
          .kv_heads = shard.kv_heads,
          .head_size = shard.head_size,
          .scale = 1.0f / std::sqrt(static_cast<float>(shard.head_size)),
          .compute = compute};
}

std::unique_ptr<Layer> NewAttention(const Node& node, DType compute, const TensorParallel& tensor) {
  return std::make_unique<AttentionLayer>(node, compute, tensor);
}

}  // namespace sluice
