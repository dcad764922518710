// dropout(row of the token + row of its position). The first of the layers: nothing comes before it. A shard of a
// tensor-parallel group has its rows of the table and makes zeros of the other tokens, so that the sum over the shards
// is exactly what one of them has made; the table of positions is on every shard.
#include "stages/layers/parts.h"
#include "stages/layers/registry.h"

namespace sluice {
namespace {

class EmbeddingLayer final : public Layer {
 public:
  EmbeddingLayer(const Node& node, DType compute, const TensorParallel& tensor)
      : has_positions_(node.positions > 0),
        rows_{.first = ShareOf(node.vocabulary, tensor.size, tensor.index).begin, .vocabulary = node.vocabulary},
        ends_(node.channels, compute, tensor),
        dropout_(node),
        arriving_(node, compute, tensor) {}

  std::vector<LayerTensor> Tensors() const override {
    std::vector<LayerTensor> tensors(kTensors);
    tensors[kDembedded] = arriving_.Tensor();
    tensors[kPartial] = ends_.Partial();
    tensors[kExchange] = ends_.Exchange();
    return tensors;
  }

  void Forward(const LayerCall& call) const override {
    call.operations.EmbeddingForward(
        call.stream, {.tokens = call.batch.tokens,
                      .positions = has_positions_ ? call.batch.positions : TensorView{},
                      .table = call.parameters[kTable].value,
                      .position_table = has_positions_ ? call.parameters[kPositionTable].value : TensorView{},
                      .rows = rows_,
                      .y = ends_.PartialOf(call.y, call.tensors[kPartial])});
    ends_.Reduce(call, call.y, call.tensors[kPartial], call.tensors[kExchange]);
    if (dropout_.Active(call)) dropout_.Apply(call, call.y, {}, call.y);
  }

  void InputGradient(const LayerCall& call) const override { arriving_.Make(call, call.tensors[kDembedded]); }

  void WeightGradient(const LayerCall& call) const override {
    const TensorView dy = arriving_.View(call, call.tensors[kDembedded]);
    Scatter(call, call.batch.tokens, rows_, dy, call.parameters[kTable].gradient);
    if (has_positions_) Scatter(call, call.batch.positions, {}, dy, call.parameters[kPositionTable].gradient);
  }

 private:
  enum Tensor { kDembedded, kPartial, kExchange, kTensors };
  enum Parameter { kTable, kPositionTable };

  void Scatter(const LayerCall& call, TensorView indices, RowRange rows, TensorView dy, TensorView dtable) const {
    call.operations.EmbeddingGradient(
        call.stream, {.indices = indices, .dy = dy, .dtable = dtable, .rows = rows, .accumulate = call.accumulate});
  }

  const bool has_positions_;
  const RowRange rows_;
  const SplitEnds ends_;
  const DropoutPart dropout_;
  const ArrivingPart arriving_;
};

}  // namespace

std::unique_ptr<Layer> NewEmbedding(const Node& node, DType compute, const TensorParallel& tensor) {
  return std::make_unique<EmbeddingLayer>(node, compute, tensor);
}

}  // namespace sluice
