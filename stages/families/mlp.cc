#include "stages/families/mlp.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace sluice {

absl::StatusOr<LayerGraph> MlpGraph(const MlpSizes& sizes) {
  if (sizes.layers < 1) return absl::InvalidArgumentError(absl::StrCat("mlp: layers is ", sizes.layers));
  LayerGraph graph{.name = "mlp", .vocabulary = sizes.vocabulary, .max_sequence = sizes.max_sequence};
  // Without norms or residuals the scale of each layer matters: 1/sqrt(inputs) keeps it.
  graph.nodes.push_back({.name = "embedding",
                         .kind = LayerKind::kEmbedding,
                         .channels = sizes.channels,
                         .vocabulary = sizes.vocabulary,
                         .positions = sizes.positions,
                         .init_deviation = 1.0f});
  int64_t channels = sizes.channels;
  for (int64_t layer = 0; layer < sizes.layers; ++layer) {
    graph.nodes.push_back({.name = absl::StrCat("layers.", layer),
                           .kind = LayerKind::kLinear,
                           .channels = channels,
                           .width = sizes.width,
                           .bias = true,
                           .init_deviation = 1.0f / std::sqrt(static_cast<float>(std::max<int64_t>(channels, 1)))});
    graph.nodes.push_back(
        {.name = absl::StrCat("layers.", layer, ".gelu"), .kind = LayerKind::kActivation, .channels = sizes.width});
    channels = sizes.width;
  }
  graph.nodes.push_back({.name = "head",
                         .kind = LayerKind::kHead,
                         .channels = channels,
                         .vocabulary = sizes.vocabulary,
                         .init_deviation = 1.0f / std::sqrt(static_cast<float>(std::max<int64_t>(channels, 1)))});
  RETURN_IF_ERROR(Validate(graph));
  return graph;
}

}  // namespace sluice
