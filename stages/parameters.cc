#include "stages/parameters.h"

#include <algorithm>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

using Init = ParameterSpec::Init;

// "h.3." of "h.3.attn"; empty where the name has no dot.
absl::string_view ParentOf(const Node& node) {
  const size_t dot = node.name.rfind('.');
  return absl::string_view(node.name).substr(0, dot == std::string::npos ? 0 : dot + 1);
}

ParameterSpec Matrix(std::string name, int64_t rows, int64_t columns, float deviation) {
  return {.name = std::move(name),
          .rows = rows,
          .columns = columns,
          .init = Init::kNormal,
          .deviation = deviation,
          .decay = true,
          .packed = true};
}

ParameterSpec Vector(std::string name, int64_t columns, Init init) {
  return {.name = std::move(name), .rows = 1, .columns = columns, .init = init};
}

void AddLinear(std::vector<ParameterSpec>* specs, const std::string& name, int64_t rows, int64_t columns,
               float deviation, bool bias) {
  specs->push_back(Matrix(absl::StrCat(name, ".weight"), rows, columns, deviation));
  if (bias) specs->push_back(Vector(absl::StrCat(name, ".bias"), rows, Init::kZero));
}

void AddNorm(std::vector<ParameterSpec>* specs, const std::string& name, const Node& node) {
  specs->push_back(Vector(absl::StrCat(name, ".weight"), node.channels, Init::kOne));
  if (node.norm == Normalization::kLayerNorm) {
    specs->push_back(Vector(absl::StrCat(name, ".bias"), node.channels, Init::kZero));
  }
}

// The names inside a block, by naming.
struct BlockNames {
  const char *norm, *in, *out;
};
BlockNames NamesOf(const Node& node) {
  const bool attention = node.kind == LayerKind::kAttention;
  if (node.naming == Naming::kLlama) {
    return attention ? BlockNames{"input_layernorm", "qkv_proj", "o_proj"}
                     : BlockNames{"post_attention_layernorm", "gate_up_proj", "down_proj"};
  }
  return attention ? BlockNames{"ln_1", "c_attn", "c_proj"} : BlockNames{"ln_2", "c_fc", "c_proj"};
}

void AddBlock(std::vector<ParameterSpec>* specs, const Node& node) {
  const bool attention = node.kind == LayerKind::kAttention;
  const BlockNames names = NamesOf(node);
  const int64_t inner = attention ? node.heads * node.head_size : node.width;
  const int64_t in_rows = attention ? (node.heads + 2 * node.kv_heads) * node.head_size
                                    : (node.activation == Activation::kSwiglu ? 2 : 1) * node.width;
  AddNorm(specs, absl::StrCat(ParentOf(node), names.norm), node);
  AddLinear(specs, absl::StrCat(node.name, ".", names.in), in_rows, node.channels, node.init_deviation, node.bias);
  AddLinear(specs, absl::StrCat(node.name, ".", names.out), node.channels, inner, node.projection_deviation, node.bias);
}

bool TiedTo(const LayerGraph& graph, const Node& embedding) {
  return std::any_of(graph.nodes.begin(), graph.nodes.end(),
                     [&](const Node& node) { return node.tied_to == embedding.name; });
}

void AddEmbedding(std::vector<ParameterSpec>* specs, const LayerGraph& graph, const Node& node) {
  ParameterSpec table = Matrix(absl::StrCat(node.name, ".weight"), node.vocabulary, node.channels, node.init_deviation);
  table.packed = false;
  table.tied = TiedTo(graph, node);
  specs->push_back(table);
  if (node.positions == 0) return;
  specs->push_back(
      Matrix(absl::StrCat(ParentOf(node), "wpe.weight"), node.positions, node.channels, node.init_deviation));
  specs->back().packed = false;
}

void AddHead(std::vector<ParameterSpec>* specs, const LayerGraph& graph, const Node& node) {
  if (node.tied_to.empty()) {
    specs->push_back(Matrix(absl::StrCat(node.name, ".weight"), node.vocabulary, node.channels, node.init_deviation));
    return;
  }
  const auto embedding = std::find_if(graph.nodes.begin(), graph.nodes.end(),
                                      [&](const Node& other) { return other.name == node.tied_to; });
  // The embedding says how the shared table begins.
  specs->push_back(
      Matrix(absl::StrCat(node.tied_to, ".weight"), node.vocabulary, node.channels, embedding->init_deviation));
  specs->back().tied = true;
}

}  // namespace

std::vector<ParameterSpec> Parameters(const LayerGraph& graph, size_t index) {
  const Node& node = graph.nodes[index];
  std::vector<ParameterSpec> specs;
  switch (node.kind) {
    case LayerKind::kEmbedding:
      AddEmbedding(&specs, graph, node);
      break;
    case LayerKind::kAttention:
    case LayerKind::kMlp:
      AddBlock(&specs, node);
      break;
    case LayerKind::kNorm:
      AddNorm(&specs, node.name, node);
      break;
    case LayerKind::kLinear:
      AddLinear(&specs, node.name, node.width, node.channels, node.init_deviation, node.bias);
      break;
    case LayerKind::kHead:
      AddHead(&specs, graph, node);
      break;
    case LayerKind::kActivation:
      break;
  }
  return specs;
}

std::vector<size_t> NodesWith(const LayerGraph& graph, absl::string_view parameter) {
  std::vector<size_t> nodes;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    for (const ParameterSpec& spec : Parameters(graph, i)) {
      if (spec.name == parameter) nodes.push_back(i);
    }
  }
  return nodes;
}

std::vector<TiedWeight> TiedWeights(const LayerGraph& graph) {
  std::vector<TiedWeight> tied;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    if (graph.nodes[i].kind != LayerKind::kEmbedding) continue;
    for (const ParameterSpec& spec : Parameters(graph, i)) {
      if (spec.tied) tied.push_back({spec.name, NodesWith(graph, spec.name)});
    }
  }
  return tied;
}

int64_t ParameterCount(const LayerGraph& graph) {
  int64_t count = 0;
  absl::flat_hash_set<std::string> seen;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    for (const ParameterSpec& spec : Parameters(graph, i)) {
      if (seen.insert(spec.name).second) count += spec.elements();
    }
  }
  return count;
}

}  // namespace sluice
