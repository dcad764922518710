// The gpt2 family (Radford et al., "Language models are unsupervised multitask learners", 2019): LayerNorm before each
// sublayer, learned positions, GELU (tanh form), biases, a head tied to the embedding.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "stages/graph.h"

namespace sluice {

struct Gpt2Sizes {
  int64_t layers = 12;
  int64_t channels = 768;
  int64_t heads = 12;
  int64_t width = 0;  // of the MLP; 0: 4 * channels
  int64_t vocabulary = 50257;
  int64_t positions = 1024;  // longest sequence
  float dropout = 0;
  bool tied = true;
  bool bias = true;  // in the linears
};

// "124M", "355M", "774M" or "1558M". NOT_FOUND lists them.
absl::StatusOr<Gpt2Sizes> Gpt2Preset(absl::string_view name);

// Nodes: wte, h.<i>.attn, h.<i>.mlp, ln_f, lm_head.
absl::StatusOr<LayerGraph> Gpt2Graph(const Gpt2Sizes& sizes);

}  // namespace sluice
