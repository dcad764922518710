// dropout(row of the token + row of its position). The first of the layers: nothing comes before it.
#include "stages/layers/parts.h"
#include "stages/layers/registry.h"

namespace sluice {
namespace {

class EmbeddingLayer final : public Layer {
 public:
  EmbeddingLayer(const Node& node, DType compute)
      : channels_(node.channels), compute_(compute), has_positions_(node.positions > 0), dropout_(node) {}

  std::vector<LayerTensor> Tensors() const override {
    return {{Lifetime::kGradient, compute_, dropout_.exists() ? channels_ : 0}};
  }

  void Forward(const LayerCall& call) const override {
    call.operations.EmbeddingForward(
        call.stream, {.tokens = call.batch.tokens,
                      .positions = has_positions_ ? call.batch.positions : TensorView{},
                      .table = call.parameters[kTable].value,
                      .position_table = has_positions_ ? call.parameters[kPositionTable].value : TensorView{},
                      .y = call.y});
    if (dropout_.Active(call)) dropout_.Apply(call, call.y, {}, call.y);
  }

  void InputGradient(const LayerCall& call) const override {
    if (dropout_.Active(call)) dropout_.Apply(call, call.dy, {}, call.tensors[kDembedded]);
  }

  void WeightGradient(const LayerCall& call) const override {
    const TensorView dy = dropout_.Active(call) ? call.tensors[kDembedded] : call.dy;
    Scatter(call, call.batch.tokens, dy, call.parameters[kTable].gradient);
    if (has_positions_) Scatter(call, call.batch.positions, dy, call.parameters[kPositionTable].gradient);
  }

 private:
  enum Tensor { kDembedded };
  enum Parameter { kTable, kPositionTable };

  void Scatter(const LayerCall& call, TensorView indices, TensorView dy, TensorView dtable) const {
    call.operations.EmbeddingGradient(call.stream,
                                      {.indices = indices, .dy = dy, .dtable = dtable, .accumulate = call.accumulate});
  }

  const int64_t channels_;
  const DType compute_;
  const bool has_positions_;
  const DropoutPart dropout_;
};

}  // namespace

std::unique_ptr<Layer> NewEmbedding(const Node& node, DType compute) {
  return std::make_unique<EmbeddingLayer>(node, compute);
}

}  // namespace sluice
