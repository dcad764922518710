#include "stages/parameters.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
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

// Equal units along an axis of a tensor, which are dealt out to the shards: heads of D rows, single rows.
struct Section {
  int64_t units = 0;
  int64_t unit = 1;  // rows or columns of one
};

// Where a shard's units of a section begin, and how many there are. Of fewer units than shards, adjacent shards hold
// one together.
struct SectionShare {
  int64_t begin, count;
  int holders, holder;
};
SectionShare ShareOfSection(const Section& section, const TensorParallel& tensor) {
  if (section.units >= tensor.size) {
    const Share share = ShareOf(section.units, tensor.size, tensor.index);
    return {share.begin * section.unit, share.count * section.unit, 1, 0};
  }
  const int holders = tensor.size / static_cast<int>(section.units);
  return {tensor.index / holders * section.unit, section.unit, holders, tensor.index % holders};
}

enum class Axis : uint8_t { kRows, kColumns };

// Makes the parameters of one node, of one shard.
class NodeParameters {
 public:
  NodeParameters(const LayerGraph& graph, const Node& node, const TensorParallel& tensor)
      : graph_(graph), node_(node), tensor_(tensor) {}

  std::vector<ParameterSpec> Make() {
    switch (node_.kind) {
      case LayerKind::kEmbedding:
        AddEmbedding();
        break;
      case LayerKind::kAttention:
      case LayerKind::kMlp:
        AddBlock();
        break;
      case LayerKind::kNorm:
        AddNorm(node_.name);
        break;
      case LayerKind::kLinear:
        AddLinear();
        break;
      case LayerKind::kHead:
        AddHead();
        break;
      case LayerKind::kActivation:
        break;
    }
    return std::move(specs_);
  }

 private:
  static ParameterSpec Matrix(std::string name, int64_t rows, int64_t columns, float deviation) {
    return {.name = std::move(name),
            .rows = rows,
            .columns = columns,
            .init = Init::kNormal,
            .deviation = deviation,
            .decay = true,
            .packed = true};
  }
  static ParameterSpec Vector(std::string name, int64_t columns, Init init) {
    return {.name = std::move(name), .rows = 1, .columns = columns, .init = init};
  }

  // Every shard has all of it. Whether it makes a part of the gradient only depends on whether it sees all tokens.
  void AddWhole(ParameterSpec spec, bool sees_all_tokens) {
    spec.complete_rows = spec.rows;
    spec.complete_columns = spec.columns;
    spec.slices = {{.rows = spec.rows,
                    .columns = spec.columns,
                    .holders = tensor_.size,
                    .holder = tensor_.index,
                    .partial_gradient = tensor_.size > 1 && !sees_all_tokens}};
    specs_.push_back(std::move(spec));
  }

  // The sections lie one after another along the axis; each is split.
  void AddSplit(ParameterSpec spec, Axis axis, const std::vector<Section>& sections) {
    spec.complete_rows = spec.rows;
    spec.complete_columns = spec.columns;
    int64_t begin = 0, held = 0;
    for (const Section& section : sections) {
      const SectionShare share = ShareOfSection(section, tensor_);
      Slice slice{.rows = spec.rows,
                  .columns = spec.columns,
                  .holders = share.holders,
                  .holder = share.holder,
                  .partial_gradient = share.holders > 1};
      (axis == Axis::kRows ? slice.row : slice.column) = begin + share.begin;
      (axis == Axis::kRows ? slice.rows : slice.columns) = share.count;
      spec.slices.push_back(slice);
      begin += section.units * section.unit;
      held += share.count;
    }
    (axis == Axis::kRows ? spec.rows : spec.columns) = held;
    specs_.push_back(std::move(spec));
  }

  // gamma and, of LayerNorm, beta.
  void AddNorm(const std::string& name) {
    AddWhole(Vector(absl::StrCat(name, ".weight"), node_.channels, Init::kOne), SeesAllTokens());
    if (node_.norm == Normalization::kLayerNorm) {
      AddWhole(Vector(absl::StrCat(name, ".bias"), node_.channels, Init::kZero), SeesAllTokens());
    }
  }

  void AddLinear() {
    AddWhole(Matrix(absl::StrCat(node_.name, ".weight"), node_.width, node_.channels, node_.init_deviation),
             SeesAllTokens());
    if (node_.bias) AddWhole(Vector(absl::StrCat(node_.name, ".bias"), node_.width, Init::kZero), SeesAllTokens());
  }

  // The linear into a block is split by its outputs, that out of it by its inputs.
  void AddBlock() {
    const BlockNames names = NamesOf(node_);
    std::vector<Section> in;
    Section out{.units = node_.width};
    if (node_.kind == LayerKind::kAttention) {
      const Section keys{node_.kv_heads, node_.head_size};
      out = {node_.heads, node_.head_size};
      in = {out, keys, keys};
    } else {
      in.assign(node_.activation == Activation::kSwiglu ? 2 : 1, out);
    }
    int64_t in_rows = 0;
    for (const Section& section : in) in_rows += section.units * section.unit;
    const std::string in_name = absl::StrCat(node_.name, ".", names.in);
    const std::string out_name = absl::StrCat(node_.name, ".", names.out);
    AddNorm(absl::StrCat(ParentOf(node_), names.norm));
    AddSplit(Matrix(absl::StrCat(in_name, ".weight"), in_rows, node_.channels, node_.init_deviation), Axis::kRows, in);
    if (node_.bias) AddSplit(Vector(absl::StrCat(in_name, ".bias"), in_rows, Init::kZero), Axis::kColumns, in);
    AddSplit(
        Matrix(absl::StrCat(out_name, ".weight"), node_.channels, out.units * out.unit, node_.projection_deviation),
        Axis::kColumns, {out});
    // Its gradient comes from what arrives at the projection, which each shard has of all tokens.
    if (node_.bias) AddWhole(Vector(absl::StrCat(out_name, ".bias"), node_.channels, Init::kZero), true);
  }

  void AddEmbedding() {
    ParameterSpec table =
        Matrix(absl::StrCat(node_.name, ".weight"), node_.vocabulary, node_.channels, node_.init_deviation);
    table.packed = false;
    table.tied = std::any_of(graph_.nodes.begin(), graph_.nodes.end(),
                             [&](const Node& node) { return node.tied_to == node_.name; });
    AddSplit(std::move(table), Axis::kRows, {{.units = node_.vocabulary}});
    if (node_.positions == 0) return;
    ParameterSpec positions =
        Matrix(absl::StrCat(ParentOf(node_), "wpe.weight"), node_.positions, node_.channels, node_.init_deviation);
    positions.packed = false;
    AddWhole(std::move(positions), true);
  }

  void AddHead() {
    // Of a tied one, the embedding says how the shared table begins.
    const Node* first = &node_;
    for (const Node& node : graph_.nodes) first = node.name == node_.tied_to ? &node : first;
    ParameterSpec weight =
        Matrix(absl::StrCat(first->name, ".weight"), node_.vocabulary, node_.channels, first->init_deviation);
    weight.tied = !node_.tied_to.empty();
    AddSplit(std::move(weight), Axis::kRows, {{.units = node_.vocabulary}});
  }

  // Of a layer that works on what leaves the layer before it.
  bool SeesAllTokens() const { return !tensor_.sequence_parallel; }

  const LayerGraph& graph_;
  const Node& node_;
  const TensorParallel& tensor_;
  std::vector<ParameterSpec> specs_;
};

// Calls body(slice, first element of it in the part) for each.
template <class Body>
void ForEachSlice(const ParameterSpec& spec, const Body& body) {
  int64_t begin = 0;
  for (const Slice& slice : spec.slices) {
    body(slice, begin);
    begin += slice.elements();
  }
}

}  // namespace

int64_t ParameterSpec::elements_answered_for() const {
  int64_t elements = 0;
  for (const Slice& slice : slices) elements += slice.holder == 0 ? slice.elements() : 0;
  return elements;
}

std::vector<ParameterSpec> Parameters(const LayerGraph& graph, size_t index, const TensorParallel& tensor) {
  return NodeParameters(graph, graph.nodes[index], tensor).Make();
}

std::vector<float> PartOf(const ParameterSpec& spec, absl::Span<const float> complete) {
  std::vector<float> part(spec.elements());
  ForEachSlice(spec, [&](const Slice& slice, int64_t begin) {
    for (int64_t row = 0; row < slice.rows; ++row) {
      const float* from = complete.data() + (slice.row + row) * spec.complete_columns + slice.column;
      std::copy_n(from, slice.columns, part.data() + begin + row * slice.columns);
    }
  });
  return part;
}

absl::StatusOr<std::vector<float>> Assemble(absl::Span<const ParameterPart> parts) {
  if (parts.empty()) return absl::InvalidArgumentError("a parameter can't be assembled from no parts");
  const ParameterSpec& first = parts.front().spec;
  const auto wrong = [&](absl::string_view what) {
    return absl::InvalidArgumentError(
        absl::StrCat("parameter \"", first.name, "\" of ", parts.size(), " parts: ", what));
  };
  std::vector<float> complete(first.complete_rows * first.complete_columns);
  int64_t covered = 0;
  absl::flat_hash_set<std::pair<int64_t, int64_t>> corners;  // of the slices seen
  bool twice = false;
  for (const ParameterPart& part : parts) {
    const ParameterSpec& spec = part.spec;
    if (spec.name != first.name || spec.complete_rows != first.complete_rows ||
        spec.complete_columns != first.complete_columns ||
        spec.elements() != static_cast<int64_t>(part.values.size())) {
      return wrong("one is of another tensor or has another number of elements");
    }
    ForEachSlice(spec, [&](const Slice& slice, int64_t begin) {
      if (slice.holder > 0) return;
      covered += slice.elements();
      twice |= !corners.emplace(slice.row, slice.column).second;
      for (int64_t row = 0; row < slice.rows; ++row) {
        std::copy_n(part.values.data() + begin + row * slice.columns, slice.columns,
                    complete.data() + (slice.row + row) * spec.complete_columns + slice.column);
      }
    });
  }
  if (twice) return wrong("a shard's is there twice");
  if (covered != static_cast<int64_t>(complete.size())) return wrong("a shard's is missing");
  return complete;
}

std::vector<PartRange> RangesOf(const ParameterSpec& spec, int64_t begin, int64_t count) {
  std::vector<PartRange> ranges;
  ForEachSlice(spec, [&](const Slice& slice, int64_t first) {
    const int64_t from = std::max(begin, first), to = std::min(begin + count, first + slice.elements());
    if (from < to) ranges.push_back({.slice = slice, .begin = from - first, .count = to - from, .first = from});
  });
  return ranges;
}

std::vector<StageParameter> StageParameters(const LayerGraph& graph, size_t begin, size_t end,
                                            const TensorParallel& tensor) {
  std::vector<StageParameter> parameters;
  absl::flat_hash_map<std::string, size_t> index_of;
  for (size_t node = begin; node < end; ++node) {
    for (const ParameterSpec& spec : Parameters(graph, node, tensor)) {
      const std::vector<size_t> nodes = spec.tied ? NodesWith(graph, spec.name) : std::vector<size_t>{node};
      const auto use = std::find(nodes.begin(), nodes.end(), node) - nodes.begin();
      const auto [at, added] = index_of.try_emplace(spec.name, parameters.size());
      if (added) parameters.push_back({.spec = spec, .uses = static_cast<int>(nodes.size())});
      parameters[at->second].spec.packed |= spec.packed;
      parameters[at->second].use_here.push_back(static_cast<int>(use));
      parameters[at->second].layers.push_back(static_cast<int>(node - begin));
    }
  }
  return parameters;
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
