// The two families as other programs know them: their sizes, and what else their files may say.
//
// Pure. GraphOf and the inverse are what readers and writers of all formats have in common.
#pragma once

#include <variant>

#include "absl/status/statusor.h"
#include "stages/families/gpt2.h"
#include "stages/families/llama.h"
#include "stages/graph.h"

namespace sluice {

struct Gpt2Model {
  Gpt2Sizes sizes;
  float norm_epsilon = 1e-5f;
};

struct LlamaModel {
  LlamaSizes sizes;
  bool attention_bias = false;  // of all four linears
  bool mlp_bias = false;        // of all three
  // Node's rope_factor and those behind it.
  float rope_factor = 1, rope_low_turns = 1, rope_high_turns = 4, rope_positions = 0;
};

absl::StatusOr<LayerGraph> GraphOf(const Gpt2Model& model);
absl::StatusOr<LayerGraph> GraphOf(const LlamaModel& model);

// INVALID_ARGUMENT: the graph is of neither family, and the layer that differs.
absl::StatusOr<std::variant<Gpt2Model, LlamaModel>> FamilyOf(const LayerGraph& graph);

}  // namespace sluice
