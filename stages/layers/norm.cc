// norm(x), as before the head. Every shard of a tensor-parallel group has it, for the tokens that it is given.
#include "stages/layers/parts.h"
#include "stages/layers/registry.h"

namespace sluice {
namespace {

class NormLayer final : public Layer {
 public:
  explicit NormLayer(const Node& node) : norm_(node) {}

  std::vector<LayerTensor> Tensors() const override {
    return {norm_.Mean(Lifetime::kKept), norm_.Rstd(Lifetime::kKept)};
  }
  void Forward(const LayerCall& call) const override {
    norm_.Forward(call, call.tensors[kMean], call.tensors[kRstd], call.y);
  }
  void InputGradient(const LayerCall& call) const override {
    if (call.dx) norm_.InputGradient(call, call.tensors[kMean], call.tensors[kRstd], call.dy, {});
  }
  void WeightGradient(const LayerCall& call) const override {
    norm_.WeightGradient(call, call.tensors[kMean], call.tensors[kRstd], call.dy);
  }

 private:
  enum Tensor { kMean, kRstd };
  const NormPart norm_;
};

}  // namespace

std::unique_ptr<Layer> NewNorm(const Node& node, DType, const TensorParallel&) {
  return std::make_unique<NormLayer>(node);
}

}  // namespace sluice
