#include "runtime/models/names.h"

#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "stages/parameters.h"

namespace sluice {
namespace {

// A module of ours and GGUF's name of it; of a block behind "h.0." or "model.layers.0.", and "blk.0.".
struct Module {
  absl::string_view ours, gguf;
};
constexpr Module kOutside[] = {{"wte", "token_embd"},         {"wpe", "position_embd"},
                               {"ln_f", "output_norm"},       {"model.embed_tokens", "token_embd"},
                               {"model.norm", "output_norm"}, {"lm_head", "output"}};
constexpr Module kInBlock[] = {{"ln_1", "attn_norm"},
                               {"attn.c_attn", "attn_qkv"},
                               {"attn.c_proj", "attn_output"},
                               {"ln_2", "ffn_norm"},
                               {"mlp.c_fc", "ffn_up"},
                               {"mlp.c_proj", "ffn_down"},
                               {"input_layernorm", "attn_norm"},
                               {"self_attn.q_proj", "attn_q"},
                               {"self_attn.k_proj", "attn_k"},
                               {"self_attn.v_proj", "attn_v"},
                               {"self_attn.o_proj", "attn_output"},
                               {"post_attention_layernorm", "ffn_norm"},
                               {"mlp.gate_proj", "ffn_gate"},
                               {"mlp.up_proj", "ffn_up"},
                               {"mlp.down_proj", "ffn_down"}};

// "self_attn.q_proj.weight" is the tensor "weight" of the module "self_attn.q_proj".
std::pair<absl::string_view, absl::string_view> SplitEnding(absl::string_view name) {
  const size_t dot = name.rfind('.');
  return {name.substr(0, dot), name.substr(dot)};
}

std::string GgufName(absl::string_view ours) {
  const auto [module, ending] = SplitEnding(ours);
  for (const Module& outside : kOutside) {
    if (outside.ours == module) return absl::StrCat(outside.gguf, ending);
  }
  for (const absl::string_view blocks : {"h.", "model.layers."}) {
    if (!absl::StartsWith(module, blocks)) continue;
    const absl::string_view rest = module.substr(blocks.size());
    const size_t dot = rest.find('.');
    for (const Module& inside : kInBlock) {
      if (dot != absl::string_view::npos && rest.substr(dot + 1) == inside.ours) {
        return absl::StrCat("blk.", rest.substr(0, dot), ".", inside.gguf, ending);
      }
    }
  }
  return "";
}

// The fused linears' parts, and which of them rope turns.
std::vector<StoredPart> Unfused(const Node& node, absl::string_view name) {
  const auto [module, ending] = SplitEnding(name);
  const auto part = [&, ending = ending](absl::string_view of, int64_t outputs, StoredPart::Form form) {
    return StoredPart{.name = absl::StrCat(node.name, ".", of, ending),
                      .outputs = outputs,
                      .form = form,
                      .head_size = form == StoredPart::Form::kInterleaved ? node.head_size : 0};
  };
  using enum StoredPart::Form;
  if (absl::EndsWith(module, ".qkv_proj")) {
    const auto turned = node.rope_theta > 0 ? kInterleaved : kAsOurs;
    return {part("q_proj", node.heads * node.head_size, turned), part("k_proj", node.kv_heads * node.head_size, turned),
            part("v_proj", node.kv_heads * node.head_size, kAsOurs)};
  }
  if (absl::EndsWith(module, ".gate_up_proj")) {
    return {part("gate_proj", node.width, kAsOurs), part("up_proj", node.width, kAsOurs)};
  }
  return {};
}

StoredParameter InHuggingFace(const Node& node, StoredParameter parameter) {
  parameter.parts = Unfused(node, parameter.name);
  for (StoredPart& part : parameter.parts) part.form = StoredPart::Form::kAsOurs;
  if (parameter.parts.empty()) parameter.parts = {{.name = parameter.name, .outputs = parameter.outputs}};
  if (node.naming == Naming::kGpt2 && node.kind != LayerKind::kHead) {
    StoredPart& part = parameter.parts.front();
    part.name = absl::StrCat("transformer.", part.name);
    const bool linear = node.kind == LayerKind::kAttention || node.kind == LayerKind::kMlp;
    if (linear && !parameter.vector) part.form = StoredPart::Form::kTransposed;
  }
  return parameter;
}

StoredParameter InGguf(const Node& node, StoredParameter parameter) {
  parameter.parts = Unfused(node, parameter.name);
  if (parameter.parts.empty()) parameter.parts = {{.name = parameter.name, .outputs = parameter.outputs}};
  for (StoredPart& part : parameter.parts) part.name = GgufName(part.name);
  return parameter;
}

}  // namespace

absl::StatusOr<std::vector<StoredParameter>> StoredParameters(const LayerGraph& graph, ModelFormat format) {
  std::vector<StoredParameter> all;
  absl::flat_hash_set<std::string> seen;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    for (const ParameterSpec& spec : Parameters(graph, i)) {
      if (!seen.insert(spec.name).second) continue;
      // Only matrices decay.
      StoredParameter parameter{.name = spec.name,
                                .vector = !spec.decay,
                                .outputs = spec.decay ? spec.rows : spec.columns,
                                .inputs = spec.decay ? spec.columns : 1};
      // The formats' names are those of the two families' modules.
      if (GgufName(parameter.name).empty() && Unfused(node, parameter.name).empty()) {
        return absl::InvalidArgumentError(
            absl::StrCat("layer \"", node.name, "\": its parameter \"", parameter.name,
                         "\" has no name in models of other programs; those of the families gpt2 and llama have"));
      }
      all.push_back(format == ModelFormat::kGguf ? InGguf(node, std::move(parameter))
                                                 : InHuggingFace(node, std::move(parameter)));
    }
  }
  return all;
}

bool IsDerivedTensor(absl::string_view stored_name) {
  return absl::EndsWith(stored_name, ".attn.bias") || absl::EndsWith(stored_name, ".attn.masked_bias") ||
         absl::EndsWith(stored_name, ".rotary_emb.inv_freq");
}

}  // namespace sluice
