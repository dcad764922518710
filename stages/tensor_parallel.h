// Tensor (model) parallelism: how the layers of a graph are split over the shards of a group, in the way of Megatron-LM
// (Shoeybi et al., 2019; Korthikanti et al., 2022 for the split of the sequence). Plain values; pure.
//
// Attention is split by heads, an MLP by the columns of its width, embedding and head by rows of the vocabulary; norms,
// standalone linears and activations stand on every shard. A shard's layer is the layer of the node that ShardOf()
// makes.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "stages/graph.h"

namespace sluice {

// This shard's place in its group.
struct TensorParallel {
  int size = 1;
  int index = 0;
  // Norms, residuals and dropout work on a shard's slice of the tokens, which is also what leaves a layer: [M / size,
  // C] in place of [M, C].
  bool sequence_parallel = false;
  friend bool operator==(const TensorParallel&, const TensorParallel&) = default;
};

// So that a sum over all shards and what is added to it fit into one operation.
inline constexpr int kMaxTensorParallel = 32;

// Which of `count` things in order are part `index` of `size`: where they don't divide, the first parts have one more.
struct Share {
  int64_t begin = 0;
  int64_t count = 0;
};
constexpr Share ShareOf(int64_t count, int size, int index) {
  const int64_t each = count / size, more = count % size;
  return {index * each + (index < more ? index : more), each + (index < more ? 1 : 0)};
}

// Tokens that a shard's norms, residuals and dropout work on, of so many.
constexpr Share TokensOf(int64_t tokens, const TensorParallel& tensor) {
  return tensor.sequence_parallel ? ShareOf(tokens, tensor.size, tensor.index) : Share{0, tokens};
}

// INVALID_ARGUMENT names the layer that can't be split so and says what would fit: the size divides the heads and an
// MLP's width, divides the key/value heads or is divided by them, and is no larger than the vocabulary (whose rows
// needn't divide: the first shards have one more).
absl::Status CheckTensorParallel(const LayerGraph& graph, const TensorParallel& tensor);

// The node with this shard's sizes: its query and key/value heads, its part of the MLP's width, its rows of the
// vocabulary. REQUIRES: CheckTensorParallel.
Node ShardOf(const Node& node, const TensorParallel& tensor);

}  // namespace sluice
