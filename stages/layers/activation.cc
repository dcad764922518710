// gelu(x), as a layer of its own. Every shard of a tensor-parallel group does it, for the tokens that it is given.
#include "stages/layers/registry.h"

namespace sluice {
namespace {

class ActivationLayer final : public Layer {
 public:
  std::vector<LayerTensor> Tensors() const override { return {}; }
  void Forward(const LayerCall& call) const override {
    call.operations.GeluForward(call.stream, {.x = call.x, .y = call.y});
  }
  void InputGradient(const LayerCall& call) const override {
    if (call.dx) call.operations.GeluBackward(call.stream, {.x = call.x, .dy = call.dy, .dx = call.dx});
  }
  void WeightGradient(const LayerCall& call) const override {}
};

}  // namespace

std::unique_ptr<Layer> NewActivation(const Node&, DType, const TensorParallel&) {
  return std::make_unique<ActivationLayer>();
}

}  // namespace sluice
