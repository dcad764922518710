#include "stages/graph.h"

#include <array>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "stages/parameters.h"

namespace sluice {
namespace {

constexpr std::array<const char*, kLayerKinds> kNames = {"embedding", "attention",  "mlp", "norm",
                                                         "linear",    "activation", "head"};

// Largest size of any one axis: products of two stay far from overflow.
constexpr int64_t kMaxSize = int64_t{1} << 30;

template <class... Parts>
absl::Status Wrong(const Node& node, const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat("layer \"", node.name, "\" (", Name(node.kind), "): ", parts...));
}

absl::Status CheckSize(const Node& node, absl::string_view what, int64_t size) {
  if (size >= 1 && size <= kMaxSize) return absl::OkStatus();
  return Wrong(node, what, " is ", size, "; it must be from 1 to ", kMaxSize);
}

absl::Status CheckAttention(const Node& node) {
  RETURN_IF_ERROR(CheckSize(node, "heads", node.heads));
  RETURN_IF_ERROR(CheckSize(node, "kv_heads", node.kv_heads));
  RETURN_IF_ERROR(CheckSize(node, "head_size", node.head_size));
  if (node.heads % node.kv_heads != 0) {
    return Wrong(node, "kv_heads ", node.kv_heads, " doesn't divide heads ", node.heads);
  }
  if (node.rope_theta < 0)
    return Wrong(node, "rope_theta is ", node.rope_theta, "; it must be positive, or 0 for no rope");
  if (!(node.rope_factor >= 1) || !(node.rope_positions >= 0) || !(node.rope_high_turns > node.rope_low_turns)) {
    return Wrong(node, "rope is scaled by ", node.rope_factor, " for ", node.rope_positions, " positions, between ",
                 node.rope_low_turns, " and ", node.rope_high_turns,
                 " turns; the factor must be at least 1, and the second number of turns above the first");
  }
  if (node.rope_theta > 0 && node.head_size % 2 != 0) {
    return Wrong(node, "rope needs an even head_size, not ", node.head_size);
  }
  return absl::OkStatus();
}

bool HasNorm(LayerKind kind) {
  return kind == LayerKind::kAttention || kind == LayerKind::kMlp || kind == LayerKind::kNorm;
}

absl::Status CheckNode(const Node& node) {
  RETURN_IF_ERROR(CheckSize(node, "channels", node.channels));
  if (!(node.dropout >= 0 && node.dropout < 1)) {
    return Wrong(node, "dropout is ", node.dropout, "; it must be at least 0 and below 1");
  }
  for (const float deviation : {node.init_deviation, node.projection_deviation}) {
    if (!(deviation >= 0 && deviation <= 100)) {
      return Wrong(node, "a standard deviation of initial weights is ", deviation, "; it must be from 0 to 100");
    }
  }
  if (HasNorm(node.kind) && !(node.norm_epsilon > 0)) return Wrong(node, "norm_epsilon must be positive");
  if (!node.tied_to.empty() && node.kind != LayerKind::kHead) return Wrong(node, "only a head can be tied");
  switch (node.kind) {
    case LayerKind::kAttention:
      return CheckAttention(node);
    case LayerKind::kMlp:
    case LayerKind::kLinear:
      return CheckSize(node, "width", node.width);
    case LayerKind::kHead:
      return CheckSize(node, "vocabulary", node.vocabulary);
    case LayerKind::kEmbedding:
      if (node.positions < 0 || node.positions > kMaxSize) return Wrong(node, "positions is ", node.positions);
      return CheckSize(node, "vocabulary", node.vocabulary);
    case LayerKind::kActivation:
      if (node.activation != Activation::kGelu) return Wrong(node, "only gelu stands alone; swiglu belongs to an mlp");
      return absl::OkStatus();
    case LayerKind::kNorm:
      return absl::OkStatus();
  }
  return Wrong(node, "unknown kind");
}

absl::Status CheckTie(const LayerGraph& graph, const Node& node,
                      const absl::flat_hash_map<std::string, size_t>& index) {
  const auto found = index.find(node.tied_to);
  if (found == index.end()) return Wrong(node, "tied to \"", node.tied_to, "\", which no layer before it is called");
  const Node& other = graph.nodes[found->second];
  if (other.kind != LayerKind::kEmbedding) return Wrong(node, "tied to \"", other.name, "\", which is no embedding");
  if (other.channels != node.channels || other.vocabulary != node.vocabulary) {
    return Wrong(node, "its weight is ", node.vocabulary, " x ", node.channels, ", that of \"", other.name, "\" is ",
                 other.vocabulary, " x ", other.channels, "; tied weights must be equal in size");
  }
  return absl::OkStatus();
}

// Names inside a block are made from its node's name, so that badly chosen ones can collide.
absl::Status CheckParameterNames(const LayerGraph& graph) {
  absl::flat_hash_map<std::string, size_t> owners;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    for (const ParameterSpec& spec : Parameters(graph, i)) {
      const auto [found, added] = owners.emplace(spec.name, i);
      if (added || spec.tied) continue;
      return Wrong(graph.nodes[i], "its parameter \"", spec.name, "\" is also one of layer \"",
                   graph.nodes[found->second].name, "\"; begin their names differently, as in \"h.0.attn\"");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckEnds(const LayerGraph& graph) {
  if (graph.nodes.size() < 2) return absl::InvalidArgumentError("the layer graph has no layers");
  if (graph.nodes.front().kind != LayerKind::kEmbedding)
    return Wrong(graph.nodes.front(), "the first layer must be an embedding");
  if (graph.nodes.back().kind != LayerKind::kHead) return Wrong(graph.nodes.back(), "the last layer must be a head");
  if (graph.max_sequence < 1 || graph.max_sequence > kMaxSize) {
    return absl::InvalidArgumentError(absl::StrCat("max_sequence is ", graph.max_sequence));
  }
  for (const Node* node : {&graph.nodes.front(), &graph.nodes.back()}) {
    if (node->vocabulary != graph.vocabulary) {
      return Wrong(*node, "vocabulary is ", node->vocabulary, ", that of the graph is ", graph.vocabulary);
    }
  }
  const int64_t positions = graph.nodes.front().positions;
  if (positions > 0 && positions < graph.max_sequence) {
    return Wrong(graph.nodes.front(), "positions ", positions, " are fewer than max_sequence ", graph.max_sequence);
  }
  return absl::OkStatus();
}

}  // namespace

absl::string_view Name(LayerKind kind) { return kNames[static_cast<size_t>(kind)]; }

absl::Status Validate(const LayerGraph& graph) {
  absl::flat_hash_map<std::string, size_t> index;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    if (node.name.empty()) return absl::InvalidArgumentError(absl::StrCat("layer ", i, " has no name"));
    if (index.contains(node.name)) return Wrong(node, "another layer has the same name");
    RETURN_IF_ERROR(CheckNode(node));
    if (i > 0) {
      const Node& before = graph.nodes[i - 1];
      if (node.kind == LayerKind::kEmbedding) return Wrong(node, "an embedding can only be the first layer");
      if (before.kind == LayerKind::kHead) return Wrong(before, "a head makes the loss and must be the last layer");
      if (OutputWidth(before) != node.channels) {
        return Wrong(node, "takes ", node.channels, " channels, but \"", before.name, "\" before it gives ",
                     OutputWidth(before));
      }
    }
    if (!node.tied_to.empty()) RETURN_IF_ERROR(CheckTie(graph, node, index));
    index.emplace(node.name, i);
  }
  RETURN_IF_ERROR(CheckEnds(graph));
  return CheckParameterNames(graph);
}

int64_t OutputWidth(const Node& node) {
  switch (node.kind) {
    case LayerKind::kLinear:
      return node.width;
    case LayerKind::kHead:
      return 0;
    default:
      return node.channels;
  }
}

int64_t OutputBytesPerToken(const Node& node, Precision precision) {
  return OutputWidth(node) * (precision == Precision::kF32 ? 4 : 2);
}

}  // namespace sluice
