// x . weight^T (+ bias). Every shard of a tensor-parallel group has all of it, for the tokens that it is given.
#include "stages/layers/parts.h"
#include "stages/layers/registry.h"

namespace sluice {
namespace {

class LinearLayer final : public Layer {
 public:
  LinearLayer(int64_t n, int64_t k, bool bias, DType compute) : linear_(n, k, compute, 0, BiasIf(bias)) {}

  std::vector<LayerTensor> Tensors() const override { return {}; }
  void Forward(const LayerCall& call) const override { linear_.Forward(call, call.x, {}, call.y); }
  void InputGradient(const LayerCall& call) const override {
    if (call.dx) linear_.InputGradient(call, call.dy, call.dx);
  }
  void WeightGradient(const LayerCall& call) const override { linear_.WeightGradient(call, call.x, call.dy); }

 private:
  const LinearPart linear_;
};

}  // namespace

std::unique_ptr<Layer> NewLinear(const Node& node, DType compute, const TensorParallel&) {
  return std::make_unique<LinearLayer>(node.width, node.channels, node.bias, compute);
}

}  // namespace sluice
