#include "runtime/models/hugging_face_config.h"

#include <cmath>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "nlohmann/json.hpp"
#include "runtime/models/families.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

// Fields of the file, each checked for its type; the first that isn't right is the error.
class Fields {
 public:
  explicit Fields(const Json& object) : object_(object) {}

  // Null counts as left out.
  const Json* Find(const char* name) const {
    const auto found = object_.find(name);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }
  int64_t Size(const char* name, std::optional<int64_t> otherwise = std::nullopt) {
    const Json* const field = Find(name);
    if (field == nullptr && otherwise.has_value()) return *otherwise;
    if (field != nullptr && field->is_number_integer()) {
      // Above 2^63 - 1 a number is unsigned, and turns negative here.
      if (const auto size = field->get<int64_t>(); size >= 1 && size <= kSizeMax) return size;
    }
    Fail(absl::InvalidArgumentError(absl::StrCat(name, field == nullptr ? " is missing" : " is no number from 1 to ",
                                                 field == nullptr ? "" : absl::StrCat(kSizeMax))));
    return 1;
  }
  float Real(const char* name, double otherwise) {
    const Json* const field = Find(name);
    if (field == nullptr) return static_cast<float>(otherwise);
    if (field->is_number()) {
      if (const double value = field->get<double>(); std::abs(value) <= 1e30) return static_cast<float>(value);
    }
    Fail(absl::InvalidArgumentError(absl::StrCat(name, " is no number, or too large")));
    return static_cast<float>(otherwise);
  }
  bool Flag(const char* name, bool otherwise) {
    const Json* const field = Find(name);
    if (field == nullptr) return otherwise;
    if (field->is_boolean()) return field->get<bool>();
    Fail(absl::InvalidArgumentError(absl::StrCat(name, " is neither true nor false")));
    return otherwise;
  }
  std::string Text(const char* name, const std::string& otherwise = "") const {
    const Json* const field = Find(name);
    return field != nullptr && field->is_string() ? field->get<std::string>() : otherwise;
  }
  void RequireFlag(const char* name, bool value) {
    if (Flag(name, value) != value) {
      Fail(absl::UnimplementedError(absl::StrCat(name, ": ", value ? "false" : "true", " is not supported")));
    }
  }
  void RequireText(const char* name, absl::string_view otherwise, std::initializer_list<absl::string_view> values) {
    const std::string text = Text(name, std::string(otherwise));
    std::string known;
    for (const absl::string_view value : values) {
      if (text == value) return;
      absl::StrAppend(&known, known.empty() ? "" : ", ", value);
    }
    Fail(absl::UnimplementedError(absl::StrCat(name, " '", text, "' is not supported; ", known, " is")));
  }
  void Fail(absl::Status status) { status_.Update(std::move(status)); }
  const absl::Status& status() const { return status_; }

 private:
  static constexpr int64_t kSizeMax = int64_t{1} << 30;
  const Json& object_;
  absl::Status status_;
};

absl::StatusOr<LayerGraph> ReadGpt2(Fields& fields) {
  Gpt2Model model;
  model.sizes = {.layers = fields.Size("n_layer"),
                 .channels = fields.Size("n_embd"),
                 .heads = fields.Size("n_head"),
                 .width = fields.Size("n_inner", 4 * fields.Size("n_embd")),
                 .vocabulary = fields.Size("vocab_size"),
                 .positions = fields.Size("n_positions"),
                 .tied = fields.Flag("tie_word_embeddings", true)};
  model.norm_epsilon = fields.Real("layer_norm_epsilon", 1e-5);
  fields.RequireText("activation_function", "gelu_new", {"gelu_new", "gelu_pytorch_tanh"});
  fields.RequireFlag("scale_attn_weights", true);
  fields.RequireFlag("scale_attn_by_inverse_layer_idx", false);
  fields.RequireFlag("add_cross_attention", false);
  RETURN_IF_ERROR(fields.status());
  return GraphOf(model);
}

// transformers 5 has all of rope in rope_parameters; before, rope_theta and rope_scaling stood apart.
void ReadRope(Fields& fields, LlamaModel* model) {
  static const Json kNone = Json::object();
  const Json* parameters = fields.Find("rope_parameters");
  if (parameters == nullptr) parameters = fields.Find("rope_scaling");
  if (parameters != nullptr && !parameters->is_object()) {
    return fields.Fail(absl::InvalidArgumentError("rope_scaling is no object"));
  }
  Fields rope(parameters == nullptr ? kNone : *parameters);
  model->sizes.rope_theta = rope.Real("rope_theta", fields.Real("rope_theta", 10000));
  rope.RequireText("rope_type", rope.Text("type", "default"), {"default", "linear", "llama3"});
  const std::string type = rope.Text("rope_type", rope.Text("type", "default"));
  if (type != "default") model->rope_factor = rope.Real("factor", 1);
  if (type == "llama3" && model->rope_factor != 1) {
    model->rope_low_turns = rope.Real("low_freq_factor", 1);
    model->rope_high_turns = rope.Real("high_freq_factor", 4);
    model->rope_positions = static_cast<float>(rope.Size("original_max_position_embeddings", 8192));
  }
  fields.Fail(Annotate(rope.status(), "rope_scaling"));
}

absl::StatusOr<LayerGraph> ReadLlama(Fields& fields) {
  LlamaModel model;
  const int64_t heads = fields.Size("num_attention_heads"), channels = fields.Size("hidden_size");
  model.sizes = {.layers = fields.Size("num_hidden_layers"),
                 .channels = channels,
                 .heads = heads,
                 .kv_heads = fields.Size("num_key_value_heads", heads),
                 .head_size = fields.Size("head_dim", std::max<int64_t>(1, channels / heads)),
                 .width = fields.Size("intermediate_size"),
                 .vocabulary = fields.Size("vocab_size"),
                 .max_sequence = fields.Size("max_position_embeddings", 2048),
                 .norm_epsilon = fields.Real("rms_norm_eps", 1e-6),
                 .tied = fields.Flag("tie_word_embeddings", false)};
  model.attention_bias = fields.Flag("attention_bias", false);
  model.mlp_bias = fields.Flag("mlp_bias", false);
  fields.RequireText("hidden_act", "silu", {"silu"});
  ReadRope(fields, &model);
  RETURN_IF_ERROR(fields.status());
  return GraphOf(model);
}

std::vector<int32_t> EndTokensOf(const Json& object) {
  std::vector<int32_t> tokens;
  const auto found = object.find("eos_token_id");
  if (found == object.end()) return tokens;
  const Json list = found->is_array() ? *found : Json::array({*found});
  for (const Json& token : list) {
    if (!token.is_number_integer()) continue;
    if (const auto id = token.get<int64_t>(); id >= 0 && id <= INT32_MAX) tokens.push_back(static_cast<int32_t>(id));
  }
  return tokens;
}

Json ConfigOf(const Gpt2Model& model) {
  const Gpt2Sizes& sizes = model.sizes;
  return {{"model_type", "gpt2"},
          {"architectures", {"GPT2LMHeadModel"}},
          {"activation_function", "gelu_new"},
          {"n_layer", sizes.layers},
          {"n_embd", sizes.channels},
          {"n_head", sizes.heads},
          {"n_inner", sizes.width},
          {"n_positions", sizes.positions},
          {"vocab_size", sizes.vocabulary},
          {"layer_norm_epsilon", model.norm_epsilon},
          {"tie_word_embeddings", sizes.tied}};
}

Json ConfigOf(const LlamaModel& model) {
  const LlamaSizes& sizes = model.sizes;
  Json config = {{"model_type", "llama"},
                 {"architectures", {"LlamaForCausalLM"}},
                 {"hidden_act", "silu"},
                 {"num_hidden_layers", sizes.layers},
                 {"hidden_size", sizes.channels},
                 {"num_attention_heads", sizes.heads},
                 {"num_key_value_heads", sizes.kv_heads},
                 {"head_dim", sizes.head_size},
                 {"intermediate_size", sizes.width},
                 {"max_position_embeddings", sizes.max_sequence},
                 {"vocab_size", sizes.vocabulary},
                 {"rms_norm_eps", sizes.norm_epsilon},
                 {"rope_theta", sizes.rope_theta},
                 {"attention_bias", model.attention_bias},
                 {"mlp_bias", model.mlp_bias},
                 {"tie_word_embeddings", sizes.tied}};
  if (model.rope_factor == 1) return config;
  Json& scaling = config["rope_scaling"];
  scaling = {{"rope_type", model.rope_positions > 0 ? "llama3" : "linear"}, {"factor", model.rope_factor}};
  if (model.rope_positions > 0) {
    scaling["low_freq_factor"] = model.rope_low_turns;
    scaling["high_freq_factor"] = model.rope_high_turns;
    scaling["original_max_position_embeddings"] = static_cast<int64_t>(model.rope_positions);
  }
  return config;
}

}  // namespace

absl::StatusOr<HuggingFaceConfig> ParseHuggingFaceConfig(absl::string_view text) {
  const Json root = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) return absl::InvalidArgumentError("no JSON object; is this a config.json?");
  Fields fields(root);
  const std::string type = fields.Text("model_type");
  if (type != "gpt2" && type != "llama") {
    return absl::UnimplementedError(
        absl::StrCat("model_type '", type, "' is not supported; supported are gpt2 and llama"));
  }
  HuggingFaceConfig config{.end_tokens = EndTokensOf(root)};
  ASSIGN_OR_RETURN(config.graph, type == "gpt2" ? ReadGpt2(fields) : ReadLlama(fields));
  return config;
}

std::vector<int32_t> ParseEndTokens(absl::string_view text) {
  const Json root = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  return root.is_object() ? EndTokensOf(root) : std::vector<int32_t>();
}

absl::StatusOr<std::string> ToHuggingFaceConfig(const HuggingFaceConfig& config) {
  ASSIGN_OR_RETURN(const auto family, FamilyOf(config.graph));
  if (const auto* gpt2 = std::get_if<Gpt2Model>(&family); gpt2 != nullptr && !gpt2->sizes.bias) {
    return absl::InvalidArgumentError(
        "a gpt2 without biases: transformers has none; train it with model { bias: true }");
  }
  Json json = std::visit([](const auto& model) { return ConfigOf(model); }, family);
  json["torch_dtype"] = "float32";
  // Left out, they would be those of the original models.
  json["bos_token_id"] = nullptr;
  json["eos_token_id"] = config.end_tokens.empty() ? Json() : Json(config.end_tokens);
  if (config.end_tokens.size() == 1) json["eos_token_id"] = config.end_tokens.front();
  return json.dump(2) + "\n";
}

}  // namespace sluice
