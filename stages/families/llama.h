// The llama family (Touvron et al., "LLaMA", 2023): RMSNorm, rotary positions, grouped-query attention, SwiGLU, no
// biases, a head of its own or tied.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "stages/graph.h"

namespace sluice {

struct LlamaSizes {
  int64_t layers = 0;
  int64_t channels = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;   // 0: as many as heads
  int64_t head_size = 0;  // 0: channels / heads
  int64_t width = 0;  // of the MLP; 0: 8/3 of the channels, rounded up to a multiple of 256 as in the paper's models
  int64_t vocabulary = 0;
  int64_t max_sequence = 2048;
  float rope_theta = 10000.0f;
  float norm_epsilon = 1e-5f;
  float dropout = 0;
  bool tied = false;
};

// Nodes: model.embed_tokens, model.layers.<i>.self_attn, model.layers.<i>.mlp, model.norm, lm_head.
absl::StatusOr<LayerGraph> LlamaGraph(const LlamaSizes& sizes);

}  // namespace sluice
