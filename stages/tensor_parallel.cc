#include "stages/tensor_parallel.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace sluice {
namespace {

template <class... Parts>
absl::Status Wrong(const Node& node, const TensorParallel& tensor, const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat("layer \"", node.name, "\" (", Name(node.kind),
                                                 ") can't be split over ", tensor.size,
                                                 " tensor-parallel shards: ", parts...));
}

absl::Status CheckNode(const Node& node, const TensorParallel& tensor) {
  const int64_t size = tensor.size;
  switch (node.kind) {
    case LayerKind::kAttention:
      if (node.heads % size != 0) return Wrong(node, tensor, "its ", node.heads, " heads don't divide evenly");
      if (node.kv_heads % size != 0 && size % node.kv_heads != 0) {
        return Wrong(node, tensor, "its ", node.kv_heads,
                     " key/value heads must be a multiple of the shards, or the shards a multiple of them");
      }
      return absl::OkStatus();
    case LayerKind::kMlp:
      if (node.width % size != 0) return Wrong(node, tensor, "its width ", node.width, " doesn't divide evenly");
      return absl::OkStatus();
    case LayerKind::kEmbedding:
    case LayerKind::kHead:
      if (node.vocabulary < size)
        return Wrong(node, tensor, "its vocabulary of ", node.vocabulary, " has too few rows");
      return absl::OkStatus();
    case LayerKind::kNorm:
    case LayerKind::kLinear:
    case LayerKind::kActivation:
      return absl::OkStatus();
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckTensorParallel(const LayerGraph& graph, const TensorParallel& tensor) {
  if (tensor.size < 1 || tensor.size > kMaxTensorParallel || tensor.index < 0 || tensor.index >= tensor.size) {
    return absl::InvalidArgumentError(absl::StrCat("shard ", tensor.index, " of ", tensor.size,
                                                   " tensor-parallel shards; there may be 1 to ", kMaxTensorParallel));
  }
  for (const Node& node : graph.nodes) RETURN_IF_ERROR(CheckNode(node, tensor));
  return absl::OkStatus();
}

Node ShardOf(const Node& node, const TensorParallel& tensor) {
  Node shard = node;
  switch (node.kind) {
    case LayerKind::kAttention:
      shard.heads = node.heads / tensor.size;
      shard.kv_heads = std::max<int64_t>(1, node.kv_heads / tensor.size);
      break;
    case LayerKind::kMlp:
      shard.width = node.width / tensor.size;
      break;
    case LayerKind::kEmbedding:
    case LayerKind::kHead:
      shard.vocabulary = ShareOf(node.vocabulary, tensor.size, tensor.index).count;
      break;
    case LayerKind::kNorm:
    case LayerKind::kLinear:
    case LayerKind::kActivation:
      break;
  }
  return shard;
}

}  // namespace sluice
