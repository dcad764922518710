#include "runtime/models/families.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace sluice {
namespace {

// A graph is as large as a file says; no model in use comes near.
constexpr int64_t kLayersMax = 4096;

absl::Status CheckLayers(int64_t layers) {
  if (layers >= 1 && layers <= kLayersMax) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the model has ", layers, " blocks; 1 to ", kLayersMax, " are possible"));
}

const Node* FindNode(const LayerGraph& graph, LayerKind kind) {
  const auto found =
      std::find_if(graph.nodes.begin(), graph.nodes.end(), [&](const Node& node) { return node.kind == kind; });
  return found == graph.nodes.end() ? nullptr : &*found;
}

// What has no effect on a trained model's output, out of the way of comparisons.
Node Trained(Node node) {
  const Node defaults;
  node.dropout = 0;
  node.init_deviation = defaults.init_deviation;
  node.projection_deviation = defaults.projection_deviation;
  return node;
}

absl::Status CheckSame(const LayerGraph& graph, const LayerGraph& family) {
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    if (i < family.nodes.size() && Trained(graph.nodes[i]) == Trained(family.nodes[i])) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("layer \"", graph.nodes[i].name, "\" is not as in a ", family.name,
                     " of these sizes; only models of the families gpt2 and llama open elsewhere"));
  }
  if (graph.nodes.size() == family.nodes.size()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the graph has fewer layers than a ", family.name));
}

}  // namespace

absl::StatusOr<LayerGraph> GraphOf(const Gpt2Model& model) {
  RETURN_IF_ERROR(CheckLayers(model.sizes.layers));
  ASSIGN_OR_RETURN(LayerGraph graph, Gpt2Graph(model.sizes));
  for (Node& node : graph.nodes) {
    const bool norm =
        node.kind == LayerKind::kAttention || node.kind == LayerKind::kMlp || node.kind == LayerKind::kNorm;
    if (norm) node.norm_epsilon = model.norm_epsilon;
  }
  RETURN_IF_ERROR(Validate(graph));
  return graph;
}

absl::StatusOr<LayerGraph> GraphOf(const LlamaModel& model) {
  RETURN_IF_ERROR(CheckLayers(model.sizes.layers));
  ASSIGN_OR_RETURN(LayerGraph graph, LlamaGraph(model.sizes));
  for (Node& node : graph.nodes) {
    if (node.kind == LayerKind::kAttention) {
      node.bias = model.attention_bias;
      node.rope_factor = model.rope_factor;
      node.rope_low_turns = model.rope_low_turns;
      node.rope_high_turns = model.rope_high_turns;
      node.rope_positions = model.rope_positions;
    }
    if (node.kind == LayerKind::kMlp) node.bias = model.mlp_bias;
  }
  RETURN_IF_ERROR(Validate(graph));
  return graph;
}

absl::StatusOr<std::variant<Gpt2Model, LlamaModel>> FamilyOf(const LayerGraph& graph) {
  const Node* const attention = FindNode(graph, LayerKind::kAttention);
  const Node* const mlp = FindNode(graph, LayerKind::kMlp);
  if (attention == nullptr || mlp == nullptr) {
    return absl::InvalidArgumentError(
        "a model without attention or MLP; only the families gpt2 and llama open elsewhere");
  }
  const auto layers = std::count_if(graph.nodes.begin(), graph.nodes.end(),
                                    [](const Node& node) { return node.kind == LayerKind::kAttention; });
  const bool tied = !graph.nodes.back().tied_to.empty();
  if (attention->naming == Naming::kGpt2) {
    Gpt2Model model{.sizes = {.layers = layers,
                              .channels = attention->channels,
                              .heads = attention->heads,
                              .width = mlp->width,
                              .vocabulary = graph.vocabulary,
                              .positions = graph.nodes.front().positions,
                              .tied = tied,
                              .bias = attention->bias},
                    .norm_epsilon = attention->norm_epsilon};
    ASSIGN_OR_RETURN(const LayerGraph family, GraphOf(model));
    RETURN_IF_ERROR(CheckSame(graph, family));
    return model;
  }
  LlamaModel model{.sizes = {.layers = layers,
                             .channels = attention->channels,
                             .heads = attention->heads,
                             .kv_heads = attention->kv_heads,
                             .head_size = attention->head_size,
                             .width = mlp->width,
                             .vocabulary = graph.vocabulary,
                             .max_sequence = graph.max_sequence,
                             .rope_theta = attention->rope_theta,
                             .norm_epsilon = attention->norm_epsilon,
                             .tied = tied},
                   .attention_bias = attention->bias,
                   .mlp_bias = mlp->bias,
                   .rope_factor = attention->rope_factor,
                   .rope_low_turns = attention->rope_low_turns,
                   .rope_high_turns = attention->rope_high_turns,
                   .rope_positions = attention->rope_positions};
  ASSIGN_OR_RETURN(const LayerGraph family, GraphOf(model));
  RETURN_IF_ERROR(CheckSame(graph, family));
  return model;
}

}  // namespace sluice
