// The layer graph: a model as a chain of nodes, cut between any two of them into stages. Plain values; no tensor, no
// device.
//
// A node's activation is a matrix [B*T, OutputWidth(node)]. Two nodes share a weight when one is `tied_to` the other.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace sluice {

enum class LayerKind : uint8_t {
  kEmbedding,   // tokens -> token row (+ position row), dropout
  kAttention,   // x + dropout(projection(attention(rope(qkv(norm(x))))))
  kMlp,         // x + dropout(projection(activation(fc(norm(x)))))
  kNorm,        // norm(x)
  kLinear,      // x . weight^T (+ bias)
  kActivation,  // gelu(x)
  kHead,        // loss: cross-entropy of the logits x . weight^T, weight tied or not; the end of the chain
};
inline constexpr int kLayerKinds = 7;

enum class Normalization : uint8_t { kLayerNorm, kRmsNorm };
enum class Activation : uint8_t { kGelu, kSwiglu };

// How the parameters inside a node are called, so that checkpoints open elsewhere.
//   gpt2:  h.0.attn -> h.0.ln_1, h.0.attn.c_attn, h.0.attn.c_proj;  h.0.mlp -> h.0.ln_2, h.0.mlp.c_fc, h.0.mlp.c_proj
//   llama: model.layers.0.self_attn -> model.layers.0.input_layernorm, .self_attn.qkv_proj, .self_attn.o_proj;
//          model.layers.0.mlp -> .post_attention_layernorm, .mlp.gate_up_proj, .mlp.down_proj
enum class Naming : uint8_t { kGpt2, kLlama };

// Sizes that a kind doesn't use stay 0.
struct Node {
  std::string name;  // unique in the graph: "wte", "h.3.mlp"
  LayerKind kind = LayerKind::kNorm;
  int64_t channels = 0;                            // C: columns of the input (embedding: of the output)
  int64_t heads = 0;                               // attention: H query heads ...
  int64_t kv_heads = 0;                            // ... G key/value heads, a divisor of H ...
  int64_t head_size = 0;                           // ... of D columns, even with rope
  int64_t width = 0;                               // mlp: F; linear: columns of the output
  int64_t vocabulary = 0;                          // embedding, head: V
  int64_t positions = 0;                           // embedding: learned positions; 0: none
  Normalization norm = Normalization::kLayerNorm;  // attention, mlp, norm
  float norm_epsilon = 1e-5f;
  float rope_theta = 0;                       // attention; 0: no rope
  float rope_factor = 1;                      // kernels/rope_scaling.h; 1: not scaled
  float rope_low_turns = 1;
  float rope_high_turns = 4;
  float rope_positions = 0;
  Activation activation = Activation::kGelu;  // mlp, activation (gelu only)
  bool bias = false;                          // attention, mlp, linear: in the linears; LayerNorm always has one
  float dropout = 0;                          // embedding; attention and mlp before the residual
  std::string tied_to;                        // head: the embedding node whose table is also its weight
  Naming naming = Naming::kGpt2;
  float init_deviation = 0.02f;        // of weights
  float projection_deviation = 0.02f;  // of the weights that lead back into the residual stream

  friend bool operator==(const Node&, const Node&) = default;
};

struct LayerGraph {
  std::string name;  // what a person calls it: "gpt2-124M"
  int64_t vocabulary = 0;
  int64_t max_sequence = 0;  // longest row it can be trained on
  std::vector<Node> nodes;   // in order of the forward pass

  friend bool operator==(const LayerGraph&, const LayerGraph&) = default;
};

enum class Precision : uint8_t { kF32, kBF16 };

// Tokens that a head works on at a time: enough for a matrix product to be fast, and few beside a long micro-batch.
inline constexpr int64_t kHeadRows = 512;

// What a stage does again in the backward pass in place of keeping it.
enum class Recomputation : uint8_t {
  kNone,
  kSelective,  // outputs of norms and activation functions inside layers
  kFull,       // everything inside a layer: only layers' inputs are kept
};

// "embedding", "attention", "mlp", "norm", "linear", "activation", "head".
absl::string_view Name(LayerKind kind);

// INVALID_ARGUMENT names the node and says what doesn't fit and what would.
absl::Status Validate(const LayerGraph& graph);

// Columns of the activation that leaves the node; 0 for the head.
int64_t OutputWidth(const Node& node);
// Bytes a token's activation has on the way out of `node`, and its gradient on the way back in.
int64_t OutputBytesPerToken(const Node& node, Precision precision);

}  // namespace sluice
