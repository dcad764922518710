#include "stages/families/llama.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace sluice {
namespace {

constexpr float kDeviation = 0.02f;

absl::Status CheckSizes(const LlamaSizes& sizes) {
  if (sizes.layers < 1) return absl::InvalidArgumentError(absl::StrCat("llama: layers is ", sizes.layers));
  if (sizes.heads < 1 || sizes.channels < 1 || (sizes.head_size == 0 && sizes.channels % sizes.heads != 0)) {
    return absl::InvalidArgumentError(absl::StrCat("llama: heads ", sizes.heads, " must divide channels ",
                                                   sizes.channels, ", or head_size must be given"));
  }
  return absl::OkStatus();
}

int64_t WidthOf(const LlamaSizes& sizes) {
  if (sizes.width > 0) return sizes.width;
  return (8 * sizes.channels / 3 + 255) / 256 * 256;
}

Node Attention(const LlamaSizes& sizes, int64_t layer) {
  return {.name = absl::StrCat("model.layers.", layer, ".self_attn"),
          .kind = LayerKind::kAttention,
          .channels = sizes.channels,
          .heads = sizes.heads,
          .kv_heads = sizes.kv_heads > 0 ? sizes.kv_heads : sizes.heads,
          .head_size = sizes.head_size > 0 ? sizes.head_size : sizes.channels / sizes.heads,
          .norm = Normalization::kRmsNorm,
          .norm_epsilon = sizes.norm_epsilon,
          .rope_theta = sizes.rope_theta,
          .dropout = sizes.dropout,
          .naming = Naming::kLlama,
          .projection_deviation = kDeviation / std::sqrt(2.0f * static_cast<float>(sizes.layers))};
}

Node Mlp(const LlamaSizes& sizes, int64_t layer) {
  return {.name = absl::StrCat("model.layers.", layer, ".mlp"),
          .kind = LayerKind::kMlp,
          .channels = sizes.channels,
          .width = WidthOf(sizes),
          .norm = Normalization::kRmsNorm,
          .norm_epsilon = sizes.norm_epsilon,
          .activation = Activation::kSwiglu,
          .dropout = sizes.dropout,
          .naming = Naming::kLlama,
          .projection_deviation = kDeviation / std::sqrt(2.0f * static_cast<float>(sizes.layers))};
}

}  // namespace

absl::StatusOr<LayerGraph> LlamaGraph(const LlamaSizes& sizes) {
  RETURN_IF_ERROR(CheckSizes(sizes));
  LayerGraph graph{.name = "llama", .vocabulary = sizes.vocabulary, .max_sequence = sizes.max_sequence};
  graph.nodes.push_back({.name = "model.embed_tokens",
                         .kind = LayerKind::kEmbedding,
                         .channels = sizes.channels,
                         .vocabulary = sizes.vocabulary,
                         .dropout = sizes.dropout,
                         .naming = Naming::kLlama});
  for (int64_t layer = 0; layer < sizes.layers; ++layer) {
    graph.nodes.push_back(Attention(sizes, layer));
    graph.nodes.push_back(Mlp(sizes, layer));
  }
  graph.nodes.push_back({.name = "model.norm",
                         .kind = LayerKind::kNorm,
                         .channels = sizes.channels,
                         .norm = Normalization::kRmsNorm,
                         .norm_epsilon = sizes.norm_epsilon,
                         .naming = Naming::kLlama});
  graph.nodes.push_back({.name = "lm_head",
                         .kind = LayerKind::kHead,
                         .channels = sizes.channels,
                         .vocabulary = sizes.vocabulary,
                         .tied_to = sizes.tied ? "model.embed_tokens" : "",
                         .naming = Naming::kLlama});
  RETURN_IF_ERROR(Validate(graph));
  return graph;
}

}  // namespace sluice
