#include "stages/layers/registry.h"

namespace sluice {

std::unique_ptr<Layer> NewLayer(const Node& node, DType compute) {
  switch (node.kind) {
    case LayerKind::kEmbedding:
      return NewEmbedding(node, compute);
    case LayerKind::kAttention:
      return NewAttention(node, compute);
    case LayerKind::kMlp:
      return NewMlp(node, compute);
    case LayerKind::kNorm:
      return NewNorm(node, compute);
    case LayerKind::kLinear:
      return NewLinear(node, compute);
    case LayerKind::kActivation:
      return NewActivation(node, compute);
    case LayerKind::kHead:
      return NewHead(node, compute);
  }
  CHECK(false) << "unknown kind of layer";
  return nullptr;
}

}  // namespace sluice
