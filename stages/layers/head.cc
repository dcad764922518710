// Head and loss in one: cross-entropy of the logits x . weight^T, summed over the micro-batch's valid targets. Its
// gradient is scaled by MicroBatchInfo::loss_scale, which makes the step's loss a mean; nothing else scales it.
//
// Logits of a whole micro-batch exist nowhere: the layer works through it in chunks of kHeadRows tokens. In training it
// does so in the input gradient, where a chunk's logits become loss, gradient, dx and the weight gradient at once, so
// that nothing is kept for later or made twice; forward and weight gradient have nothing left to do.
//
// A shard of a tensor-parallel group has its rows of the weight, and so its columns of the logits. Nobody sees all of
// them: of each token the shards exchange their largest logit, their sum of exponentials and the target's logit, from
// which each makes the same loss and the gradient of its own logits.
#include <algorithm>

#include "stages/layers/parts.h"
#include "stages/layers/registry.h"

namespace sluice {
namespace {

TensorView Rows(TensorView view, int64_t begin, int64_t count) {
  const int64_t columns = view.columns();
  return {view.data + begin * columns * SizeOf(view.dtype), view.dtype, {count, columns}};
}

// Elements, not rows.
TensorView Part(TensorView view, int64_t begin, int64_t count) {
  return {view.data + begin * SizeOf(view.dtype), view.dtype, {count}};
}

class HeadLayer final : public Layer {
 public:
  HeadLayer(const Node& node, DType compute, const TensorParallel& tensor)
      : channels_(node.channels),
        vocabulary_(ShardOf(node, tensor).vocabulary),
        columns_{.first = ShareOf(node.vocabulary, tensor.size, tensor.index).begin, .vocabulary = node.vocabulary},
        compute_(compute),
        shards_(tensor.size),
        ends_(channels_, compute, tensor),
        linear_(vocabulary_, channels_, compute, 0, Bias::kNone) {}

  std::vector<LayerTensor> Tensors() const override {
    std::vector<LayerTensor> tensors(kTensors);
    const auto of_chunk = [](DType dtype, int64_t columns) {
      return LayerTensor{Lifetime::kScratch, dtype, columns, TensorRows::kAll, kHeadRows};
    };
    tensors[kLogits] = of_chunk(DType::kF32, vocabulary_);
    // In f32 the gradient is written over the logits.
    tensors[kDlogits] = of_chunk(compute_, compute_ == DType::kF32 ? 0 : vocabulary_);
    tensors[kLosses] = of_chunk(DType::kF32, 1);
    tensors[kWanted] = of_chunk(compute_, channels_);
    tensors[kStatistics] = of_chunk(DType::kF32, ends_.split() ? 3 * shards_ : 0);
    tensors[kGathered] = ends_.Partial();
    tensors[kPartial] = ends_.Partial();
    tensors[kExchange] = ends_.Exchange();
    return tensors;
  }

  void Forward(const LayerCall& call) const override {
    const bool nothing_drawn = !call.logits && !call.batch.targets;  // a part of a prompt, in generation
    if (call.training || nothing_drawn) return;
    const TensorView x = AllTokens(call);
    if (call.logits) {
      MakeLogits(call, x);
      return Draw(call);
    }
    ForEachChunk(call.rows * call.sequence,
                 [&](int64_t begin, int64_t count) { MakeLoss(call, x, begin, count, /*dlogits=*/{}); });
  }

  void InputGradient(const LayerCall& call) const override {
    const TensorView x = AllTokens(call), partial = call.tensors[kPartial], dx = ends_.PartialOf(call.dx, partial);
    ForEachChunk(call.rows * call.sequence, [&](int64_t begin, int64_t count) {
      const TensorView dlogits = Rows(call.tensors[compute_ == DType::kF32 ? kLogits : kDlogits], 0, count);
      MakeLoss(call, x, begin, count, dlogits);
      if (call.dx) linear_.InputGradient(call, dlogits, Rows(dx, begin, count));
      linear_.WeightGradient(call, Rows(x, begin, count), dlogits, begin == 0 ? call.accumulate : Accumulate::kAdd);
    });
    if (call.dx) ends_.Reduce(call, call.dx, partial, call.tensors[kExchange]);
  }

  void WeightGradient(const LayerCall& call) const override {}

 private:
  enum Tensor { kLogits, kDlogits, kLosses, kWanted, kStatistics, kGathered, kPartial, kExchange, kTensors };
  static_assert(kTensors <= kMaxLayerTensors);

  template <class Body>
  static void ForEachChunk(int64_t rows, const Body& body) {
    for (int64_t begin = 0; begin < rows; begin += kHeadRows) body(begin, std::min(kHeadRows, rows - begin));
  }

  static TensorView Row(const TensorView& matrix, int64_t row) {
    TensorView vector = Rows(matrix, row, 1);
    vector.shape = {vector.columns()};
    return vector;
  }

  TensorView AllTokens(const LayerCall& call) const {
    if (!ends_.slices()) return call.x;
    call.group->AllGather(call.stream, call.x, call.tensors[kGathered]);
    return call.tensors[kGathered];
  }

  // Of a chunk; without dlogits the loss alone.
  void MakeLoss(const LayerCall& call, TensorView x, int64_t begin, int64_t count, TensorView dlogits) const {
    const TensorView logits = Rows(call.tensors[kLogits], 0, count);
    const TensorView targets = Part(call.batch.targets, begin, count);
    linear_.Forward(call, Rows(x, begin, count), /*add=*/{}, logits);
    call.operations.CrossEntropy(call.stream, {.logits = logits,
                                               .columns = columns_,
                                               .statistics = Statistics(call, logits, targets),
                                               .targets = targets,
                                               .losses = Part(call.tensors[kLosses], 0, count),
                                               .total = call.loss,
                                               .accumulate = begin == 0 ? Accumulate::kOverwrite : Accumulate::kAdd,
                                               .scale = call.loss_scale,
                                               .dlogits = dlogits});
  }

  // Of all shards, [S, tokens of the chunk, 3]; absent where there is one.
  TensorView Statistics(const LayerCall& call, TensorView logits, TensorView targets) const {
    if (!ends_.split()) return {};
    TensorView all = call.tensors[kStatistics], mine = all;
    all.shape = {shards_, logits.rows(), 3};
    mine.shape = {logits.rows(), 3};
    mine.data += call.group->index() * mine.bytes();
    call.operations.LogitStatistics(call.stream,
                                    {.logits = logits, .targets = targets, .columns = columns_, .statistics = mine});
    call.group->AllGather(call.stream, mine, all);
    return all;
  }

  // Of the tokens wanted alone, which are brought together first. Shards put their columns together token by token.
  void MakeLogits(const LayerCall& call, TensorView x) const {
    ForEachChunk(call.logits.rows(), [&](int64_t begin, int64_t count) {
      const TensorView wanted = Rows(call.tensors[kWanted], 0, count);
      for (int64_t i = 0; i < count; ++i) {
        call.operations.Copy(call.stream, Rows(x, call.logits_of[begin + i], 1), Rows(wanted, i, 1));
      }
      if (!ends_.split()) return linear_.Forward(call, wanted, /*add=*/{}, Rows(call.logits, begin, count));
      const TensorView mine = Rows(call.tensors[kLogits], 0, count);
      linear_.Forward(call, wanted, /*add=*/{}, mine);
      for (int64_t i = 0; i < count; ++i) {
        call.group->AllGather(call.stream, Row(mine, i), Row(call.logits, begin + i));
      }
    });
  }

  // All shards have the same logits, and draw the same tokens.
  void Draw(const LayerCall& call) const {
    if (!call.draw.tokens) return;
    call.operations.SampleTokens(call.stream, {.logits = call.logits,
                                               .sequences = call.draw.sequences,
                                               .positions = call.draw.positions,
                                               .rules = call.draw.rules,
                                               .seen = call.draw.seen,
                                               .tokens = call.draw.tokens});
  }

  const int64_t channels_;
  const int64_t vocabulary_;  // this shard's rows of it
  const RowRange columns_;
  const DType compute_;
  const int64_t shards_;
  const SplitEnds ends_;
  const LinearPart linear_;
};

}  // namespace

std::unique_ptr<Layer> NewHead(const Node& node, DType compute, const TensorParallel& tensor) {
  return std::make_unique<HeadLayer>(node, compute, tensor);
}

}  // namespace sluice
