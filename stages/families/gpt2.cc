#include "stages/families/gpt2.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace sluice {
namespace {

constexpr float kDeviation = 0.02f;

absl::Status CheckSizes(const Gpt2Sizes& sizes) {
  if (sizes.layers < 1) return absl::InvalidArgumentError(absl::StrCat("gpt2: layers is ", sizes.layers));
  if (sizes.heads < 1 || sizes.channels < 1 || sizes.channels % sizes.heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("gpt2: heads ", sizes.heads, " must divide channels ", sizes.channels));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Gpt2Sizes> Gpt2Preset(absl::string_view name) {
  if (name == "124M") return Gpt2Sizes{.layers = 12, .channels = 768, .heads = 12};
  if (name == "355M") return Gpt2Sizes{.layers = 24, .channels = 1024, .heads = 16};
  if (name == "774M") return Gpt2Sizes{.layers = 36, .channels = 1280, .heads = 20};
  if (name == "1558M") return Gpt2Sizes{.layers = 48, .channels = 1600, .heads = 25};
  return absl::NotFoundError(absl::StrCat("gpt2 has no preset \"", name, "\"; there are 124M, 355M, 774M and 1558M"));
}

absl::StatusOr<LayerGraph> Gpt2Graph(const Gpt2Sizes& sizes) {
  RETURN_IF_ERROR(CheckSizes(sizes));
  const float projection = kDeviation / std::sqrt(2.0f * static_cast<float>(sizes.layers));
  LayerGraph graph{.name = "gpt2", .vocabulary = sizes.vocabulary, .max_sequence = sizes.positions};
  graph.nodes.push_back({.name = "wte",
                         .kind = LayerKind::kEmbedding,
                         .channels = sizes.channels,
                         .vocabulary = sizes.vocabulary,
                         .positions = sizes.positions,
                         .dropout = sizes.dropout});
  for (int64_t layer = 0; layer < sizes.layers; ++layer) {
    graph.nodes.push_back({.name = absl::StrCat("h.", layer, ".attn"),
                           .kind = LayerKind::kAttention,
                           .channels = sizes.channels,
                           .heads = sizes.heads,
                           .kv_heads = sizes.heads,
                           .head_size = sizes.channels / sizes.heads,
                           .bias = sizes.bias,
                           .dropout = sizes.dropout,
                           .projection_deviation = projection});
    graph.nodes.push_back({.name = absl::StrCat("h.", layer, ".mlp"),
                           .kind = LayerKind::kMlp,
                           .channels = sizes.channels,
                           .width = sizes.width > 0 ? sizes.width : 4 * sizes.channels,
                           .bias = sizes.bias,
                           .dropout = sizes.dropout,
                           .projection_deviation = projection});
  }
  graph.nodes.push_back({.name = "ln_f", .kind = LayerKind::kNorm, .channels = sizes.channels});
  graph.nodes.push_back({.name = "lm_head",
                         .kind = LayerKind::kHead,
                         .channels = sizes.channels,
                         .vocabulary = sizes.vocabulary,
                         .tied_to = sizes.tied ? "wte" : ""});
  RETURN_IF_ERROR(Validate(graph));
  return graph;
}

}  // namespace sluice
