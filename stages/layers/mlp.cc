// x + dropout(projection(activation(fc(norm(x))))). With SwiGLU, fc makes F gates and then F ups of each token in one
// fused linear. A shard has its share of both.
#include "stages/layers/parts.h"
#include "stages/layers/registry.h"

namespace sluice {
namespace {

class MlpLayer final : public Layer {
 public:
  MlpLayer(const Node& node, DType compute, const TensorParallel& tensor)
      : node_(ShardOf(node, tensor)),
        compute_(compute),
        gated_(node.activation == Activation::kSwiglu),
        ends_(node.channels, compute, tensor),
        norm_(node),
        fc_(HiddenColumns(), node.channels, compute, norm_.parameters(), BiasIf(node.bias)),
        residual_(node, node_.width, compute, norm_.parameters() + fc_.parameters(), tensor) {}

  std::vector<LayerTensor> Tensors() const override {
    std::vector<LayerTensor> tensors(kTensors);
    tensors[kMean] = norm_.Mean(Lifetime::kSaved);
    tensors[kRstd] = norm_.Rstd(Lifetime::kSaved);
    tensors[kNormed] = {Lifetime::kCheap, compute_, node_.channels};
    tensors[kHidden] = {Lifetime::kSaved, compute_, HiddenColumns()};
    tensors[kActivated] = {Lifetime::kCheap, compute_, node_.width};
    tensors[kDprojected] = residual_.Dprojected();
    // GELU's gradient is made in place, in dhidden.
    tensors[kDactivated] = {Lifetime::kScratch, compute_, gated_ ? node_.width : 0};
    tensors[kDhidden] = {Lifetime::kGradient, compute_, HiddenColumns()};
    tensors[kDnormed] = {Lifetime::kGradient, compute_, node_.channels, TensorRows::kSlice};
    tensors[kPartial] = ends_.Partial();
    tensors[kExchange] = ends_.Exchange();
    return tensors;
  }

  void Forward(const LayerCall& call) const override {
    Normalize(call);
    fc_.Forward(call, call.tensors[kNormed], {}, call.tensors[kHidden]);
    Activate(call);
    residual_.Forward(call, call.tensors[kActivated], call.tensors[kPartial], call.tensors[kExchange]);
  }

  void RecomputeCheap(const LayerCall& call) const override {
    Normalize(call);
    Activate(call);
  }

  void InputGradient(const LayerCall& call) const override {
    const TensorView dactivated = call.tensors[gated_ ? kDactivated : kDhidden];
    residual_.InputGradient(call, call.tensors[kDprojected], dactivated);
    if (gated_) {
      call.operations.SwigluBackward(
          call.stream, {.gate_up = call.tensors[kHidden], .dy = dactivated, .dgate_up = call.tensors[kDhidden]});
    } else {
      call.operations.GeluBackward(call.stream,
                                   {.x = call.tensors[kHidden], .dy = dactivated, .dx = call.tensors[kDhidden]});
    }
    const TensorView dnormed = call.tensors[kDnormed], partial = call.tensors[kPartial];
    fc_.InputGradient(call, call.tensors[kDhidden], ends_.PartialOf(dnormed, partial));
    ends_.Reduce(call, dnormed, partial, call.tensors[kExchange]);
    if (!call.dx) return;
    norm_.InputGradient(call, call.tensors[kMean], call.tensors[kRstd], dnormed, call.dy);
  }

  void WeightGradient(const LayerCall& call) const override {
    residual_.WeightGradient(call, call.tensors[kActivated], call.tensors[kDprojected]);
    fc_.WeightGradient(call, call.tensors[kNormed], call.tensors[kDhidden]);
    norm_.WeightGradient(call, call.tensors[kMean], call.tensors[kRstd], call.tensors[kDnormed]);
  }

 private:
  enum Tensor {
    kMean,
    kRstd,
    kNormed,
    kHidden,
    kActivated,
    kDprojected,
    kDactivated,
    kDhidden,
    kDnormed,
    kPartial,
    kExchange,
    kTensors
  };
  static_assert(kTensors <= kMaxLayerTensors);

  int64_t HiddenColumns() const { return (gated_ ? 2 : 1) * node_.width; }

  void Normalize(const LayerCall& call) const {
    norm_.Forward(call, call.tensors[kMean], call.tensors[kRstd], ends_.Outside(call, call.tensors[kNormed]));
    ends_.Gather(call, call.tensors[kNormed]);
  }

  void Activate(const LayerCall& call) const {
    if (gated_) {
      call.operations.SwigluForward(call.stream, {.gate_up = call.tensors[kHidden], .y = call.tensors[kActivated]});
    } else {
      call.operations.GeluForward(call.stream, {.x = call.tensors[kHidden], .y = call.tensors[kActivated]});
    }
  }

  const Node node_;
  const DType compute_;
  const bool gated_;
  const SplitEnds ends_;
  const NormPart norm_;
  const LinearPart fc_;
  const ResidualPart residual_;
};

}  // namespace

std::unique_ptr<Layer> NewMlp(const Node& node, DType compute, const TensorParallel& tensor) {
  return std::make_unique<MlpLayer>(node, compute, tensor);
}

}  // namespace sluice
