// The loss: cross-entropy of the logits, summed over the micro-batch's valid targets. Its gradient is scaled by
// MicroBatchInfo::loss_scale, which makes the step's loss a mean; nothing else scales it.
#include "stages/layers/registry.h"

namespace sluice {
namespace {

class CrossEntropyLayer final : public Layer {
 public:
  std::vector<LayerTensor> Tensors() const override { return {{Lifetime::kKept, DType::kF32, 1}}; }

  void Forward(const LayerCall& call) const override {
    call.operations.CrossEntropyForward(
        call.stream, {.logits = call.x, .targets = call.batch.targets, .lse = Lse(call), .total = call.loss});
  }
  void InputGradient(const LayerCall& call) const override {
    if (!call.dx) return;
    call.operations.CrossEntropyBackward(call.stream, {.logits = call.x,
                                                       .targets = call.batch.targets,
                                                       .lse = Lse(call),
                                                       .scale = call.loss_scale,
                                                       .dlogits = call.dx});
  }
  void WeightGradient(const LayerCall& call) const override {}

 private:
  static TensorView Lse(const LayerCall& call) {
    TensorView view = call.tensors[0];
    view.shape = {view.elements()};
    return view;
  }
};

}  // namespace

std::unique_ptr<Layer> NewCrossEntropy(const Node& node, DType compute) {
  return std::make_unique<CrossEntropyLayer>();
}

}  // namespace sluice
