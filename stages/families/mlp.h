// The mlp family: a multilayer perceptron on one token's (and, with positions, its place's) embedding, which predicts
// the next token without looking at any other. It trains on the same text as the others; it is small, fast, and every
// layer is a node.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "stages/graph.h"

namespace sluice {

struct MlpSizes {
  int64_t layers = 2;  // hidden ones: linear and gelu each
  int64_t channels = 64;
  int64_t width = 256;
  int64_t vocabulary = 256;
  int64_t positions = 0;  // learned; 0: none
  int64_t max_sequence = 1024;
};

// Nodes: embedding, layers.<i>, layers.<i>.gelu, head.
absl::StatusOr<LayerGraph> MlpGraph(const MlpSizes& sizes);

}  // namespace sluice
