#include "stages/graph_io.h"

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "google/protobuf/text_format.h"
#include "proto/graph.pb.h"
#include "proto/text.h"
#include "stages/parameters.h"

namespace sluice {
namespace {

// X(proto field, member) for each plain field of a node: reading and writing share the list.
#define PLAIN_FIELDS(X)                                                                                             \
  X(name, name)                                                                                                     \
  X(channels, channels)                                                                                             \
  X(heads, heads)                                                                                                   \
  X(kv_heads, kv_heads) X(head_size, head_size) X(width, width) X(vocabulary, vocabulary) X(positions, positions)   \
      X(norm_epsilon, norm_epsilon) X(rope_theta, rope_theta) X(rope_factor, rope_factor)                           \
          X(rope_low_turns, rope_low_turns) X(rope_high_turns, rope_high_turns) X(rope_positions, rope_positions)   \
              X(bias, bias) X(dropout, dropout) X(tied_to, tied_to)                                                 \
          X(init_deviation, init_deviation) X(projection_deviation, projection_deviation)

Node NodeFrom(const proto::Node& from) {
  Node node;
#define READ(field, member) \
  if (from.has_##field()) node.member = from.field();
  PLAIN_FIELDS(READ)
#undef READ
  node.kind = static_cast<LayerKind>(from.kind() - 1);
  if (from.has_normalization()) node.norm = static_cast<Normalization>(from.normalization());
  if (from.has_function()) node.activation = static_cast<Activation>(from.function());
  if (from.has_naming()) node.naming = static_cast<Naming>(from.naming());
  return node;
}

void NodeTo(const Node& node, proto::Node& to) {
  const Node defaults;
  to.set_kind(static_cast<proto::Node::Kind>(static_cast<int>(node.kind) + 1));
#define WRITE(field, member) \
  if (node.member != defaults.member) to.set_##field(node.member);
  PLAIN_FIELDS(WRITE)
#undef WRITE
  if (node.norm != defaults.norm) to.set_normalization(static_cast<proto::Node::Normalization>(node.norm));
  if (node.activation != defaults.activation) {
    to.set_function(static_cast<proto::Node::ActivationFunction>(node.activation));
  }
  if (node.naming != defaults.naming) to.set_naming(static_cast<proto::Node::Naming>(node.naming));
}
#undef PLAIN_FIELDS

static_assert(static_cast<int>(LayerKind::kEmbedding) + 1 == proto::Node::embedding);
static_assert(static_cast<int>(LayerKind::kHead) + 1 == proto::Node::head && kLayerKinds == 7);
static_assert(static_cast<int>(Normalization::kRmsNorm) == proto::Node::rms_norm);
static_assert(static_cast<int>(Activation::kSwiglu) == proto::Node::swiglu);
static_assert(static_cast<int>(Naming::kLlama) == proto::Node::llama);

// "graph.textproto:12: " of the node that `message` quotes by name, or of the file.
std::string PlaceOf(const LayerGraph& graph, absl::string_view message, const TextLocations& locations) {
  for (size_t i = graph.nodes.size(); i-- > 0;) {
    const std::string quoted = absl::StrCat("layer \"", graph.nodes[i].name, "\"");
    if (!graph.nodes[i].name.empty() && message.substr(0, quoted.size()) == quoted) {
      return locations.Prefix(absl::StrCat("node.", i, ".name"));
    }
  }
  return locations.Prefix("node");
}

}  // namespace

std::string GraphToText(const LayerGraph& graph) {
  proto::Graph to;
  to.set_format_version(1);
  to.set_name(graph.name);
  to.set_vocabulary(graph.vocabulary);
  to.set_max_sequence(graph.max_sequence);
  for (const Node& node : graph.nodes) NodeTo(node, *to.add_node());
  std::string text;
  google::protobuf::TextFormat::Printer printer;
  printer.PrintToString(to, &text);
  return absl::StrCat("# A layer graph of Sluice: ", graph.nodes.size(), " layers, ", ParameterCount(graph),
                      " parameters.\n", text);
}

absl::StatusOr<LayerGraph> GraphFromText(absl::string_view text, absl::string_view file) {
  proto::Graph from;
  ASSIGN_OR_RETURN(const TextLocations locations, ParseText(text, file, from));
  if (from.has_format_version() && from.format_version() != 1) {
    return absl::InvalidArgumentError(absl::StrCat(locations.Prefix("format_version"), "format_version is ",
                                                   from.format_version(), "; this program understands 1"));
  }
  LayerGraph graph{.name = from.name(), .vocabulary = from.vocabulary(), .max_sequence = from.max_sequence()};
  for (int i = 0; i < from.node_size(); ++i) {
    const std::string field = absl::StrCat("node.", i);
    if (from.node(i).kind() == proto::Node::unset) {
      return absl::InvalidArgumentError(absl::StrCat(locations.Prefix(field), "a node needs a kind"));
    }
    if (from.node(i).kind() == proto::Node::cross_entropy) {
      return absl::InvalidArgumentError(
          absl::StrCat(locations.Prefix(field), "the head makes the loss: leave this node out and end with the head"));
    }
    graph.nodes.push_back(NodeFrom(from.node(i)));
  }
  if (absl::Status valid = Validate(graph); !valid.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(PlaceOf(graph, valid.message(), locations), valid.message()));
  }
  return graph;
}

absl::StatusOr<LayerGraph> LoadGraph(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path));
  return GraphFromText(text, path);
}

}  // namespace sluice
