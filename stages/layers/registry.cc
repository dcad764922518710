#include "stages/layers/registry.h"

namespace sluice {

std::unique_ptr<Layer> NewLayer(const Node& node, DType compute, const TensorParallel& tensor) {
  switch (node.kind) {
    case LayerKind::kEmbedding:
      return NewEmbedding(node, compute, tensor);
    case LayerKind::kAttention:
      return NewAttention(node, compute, tensor);
    case LayerKind::kMlp:
      return NewMlp(node, compute, tensor);
    case LayerKind::kNorm:
      return NewNorm(node, compute, tensor);
    case LayerKind::kLinear:
      return NewLinear(node, compute, tensor);
    case LayerKind::kActivation:
      return NewActivation(node, compute, tensor);
    case LayerKind::kHead:
      return NewHead(node, compute, tensor);
  }
  CHECK(false) << "unknown kind of layer";
  return nullptr;
}

}  // namespace sluice
