#include "runtime/config/model.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "proto/text.h"
#include "runtime/models/model.h"
#include "stages/families/gpt2.h"
#include "stages/families/llama.h"
#include "stages/families/mlp.h"
#include "stages/graph_io.h"

namespace sluice {
namespace {

constexpr int64_t kByteVocabulary = 256;

absl::Status NotOf(absl::string_view family, absl::string_view field) {
  return absl::InvalidArgumentError(absl::StrCat("the family ", family, " has no ", field));
}

template <class Size, class Value>
void Take(const std::optional<Value>& given, Size& size) {
  if (given.has_value()) size = static_cast<Size>(*given);
}

absl::StatusOr<LayerGraph> Gpt2(const JobConfig& config) {
  const ModelConfig& model = config.model;
  if (model.kv_heads) return NotOf("gpt2", "kv_heads");
  if (model.head_size) return NotOf("gpt2", "head_size");
  if (model.rope_theta) return NotOf("gpt2", "rope_theta");
  if (model.norm_epsilon) return NotOf("gpt2", "norm_epsilon");
  Gpt2Sizes sizes;
  if (!model.preset.empty()) {
    ASSIGN_OR_RETURN(sizes, Gpt2Preset(model.preset));
  } else {
    if (!config.data.text.empty()) sizes.vocabulary = kByteVocabulary;
    sizes.positions = config.training.sequence;
  }
  Take(model.layers, sizes.layers);
  Take(model.channels, sizes.channels);
  Take(model.heads, sizes.heads);
  Take(model.width, sizes.width);
  Take(model.vocabulary, sizes.vocabulary);
  Take(model.positions, sizes.positions);
  Take(model.dropout, sizes.dropout);
  Take(model.tied, sizes.tied);
  Take(model.bias, sizes.bias);
  return Gpt2Graph(sizes);
}

absl::StatusOr<LayerGraph> Llama(const JobConfig& config) {
  const ModelConfig& model = config.model;
  if (!model.preset.empty()) {
    return absl::InvalidArgumentError("the family llama has no presets; give layers, channels, heads, vocabulary");
  }
  if (model.bias) return NotOf("llama", "bias");
  LlamaSizes sizes;
  for (const auto& [name, given] :
       {std::pair{"layers", model.layers}, {"channels", model.channels}, {"heads", model.heads}}) {
    if (!given) return absl::InvalidArgumentError(absl::StrCat("the family llama needs ", name));
  }
  if (config.data.text.empty() && !model.vocabulary) {
    return absl::InvalidArgumentError("the family llama needs vocabulary when it trains on token files");
  }
  sizes.vocabulary = kByteVocabulary;
  sizes.max_sequence = config.training.sequence;
  Take(model.layers, sizes.layers);
  Take(model.channels, sizes.channels);
  Take(model.heads, sizes.heads);
  Take(model.kv_heads, sizes.kv_heads);
  Take(model.head_size, sizes.head_size);
  Take(model.width, sizes.width);
  Take(model.vocabulary, sizes.vocabulary);
  Take(model.positions, sizes.max_sequence);
  Take(model.rope_theta, sizes.rope_theta);
  Take(model.norm_epsilon, sizes.norm_epsilon);
  Take(model.dropout, sizes.dropout);
  Take(model.tied, sizes.tied);
  return LlamaGraph(sizes);
}

absl::StatusOr<LayerGraph> Mlp(const JobConfig& config) {
  const ModelConfig& model = config.model;
  if (!model.preset.empty()) return absl::InvalidArgumentError("the family mlp has no presets");
  if (model.heads || model.kv_heads || model.head_size) return NotOf("mlp", "heads");
  if (model.rope_theta) return NotOf("mlp", "rope_theta");
  if (model.norm_epsilon) return NotOf("mlp", "norm_epsilon");
  if (model.dropout) return NotOf("mlp", "dropout");
  if (model.tied) return NotOf("mlp", "tied");
  if (model.bias) return NotOf("mlp", "bias");
  MlpSizes sizes;
  sizes.max_sequence = config.training.sequence;
  Take(model.layers, sizes.layers);
  Take(model.channels, sizes.channels);
  Take(model.width, sizes.width);
  Take(model.vocabulary, sizes.vocabulary);
  Take(model.positions, sizes.positions);
  if (model.positions) sizes.max_sequence = sizes.positions;
  return MlpGraph(sizes);
}

absl::Status TakeModel(JobConfig& config) {
  ASSIGN_OR_RETURN(PretrainedModel model, OpenModel(config.model.from));
  if (!config.data.text.empty() && model.graph.vocabulary != kByteVocabulary) {
    return absl::InvalidArgumentError(
        absl::StrCat("data.text is read as bytes, but the model's tokens are ", model.graph.vocabulary,
                     "; turn it into data.tokens with `sluice tokenize --tokenizer ", config.model.from, "`"));
  }
  for (Node& node : model.graph.nodes) {
    const bool drops =
        node.kind == LayerKind::kEmbedding || node.kind == LayerKind::kAttention || node.kind == LayerKind::kMlp;
    if (drops) Take(config.model.dropout, node.dropout);
  }
  config.graph = std::move(model.graph);
  config.initial = std::move(model.parameters);
  return absl::OkStatus();
}

absl::StatusOr<LayerGraph> GraphOf(const JobConfig& config) {
  const ModelConfig& model = config.model;
  if (!model.graph.empty()) return LoadGraph(model.graph);
  if (model.family == "gpt2") return Gpt2(config);
  if (model.family == "llama") return Llama(config);
  if (model.family == "mlp") return Mlp(config);
  const std::string nearest = NearestName({"gpt2", "llama", "mlp"}, model.family);
  return absl::InvalidArgumentError(absl::StrCat("unknown family \"", model.family, "\"; known: gpt2, llama, mlp",
                                                 nearest.empty() ? "" : absl::StrCat("; did you mean ", nearest, "?")));
}

}  // namespace

absl::Status MakeModel(JobConfig& config) {
  if (!config.model.from.empty()) return TakeModel(config);
  ASSIGN_OR_RETURN(config.graph, GraphOf(config));
  return absl::OkStatus();
}

}  // namespace sluice
