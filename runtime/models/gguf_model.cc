#include "runtime/models/gguf_model.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "runtime/models/families.h"

namespace sluice {
namespace {

constexpr int64_t kSizeMax = int64_t{1} << 30;

// An architecture's values, by the ends of their keys; the first that isn't right is the error.
class Values {
 public:
  Values(const Gguf& file, absl::string_view architecture) : file_(file), prefix_(absl::StrCat(architecture, ".")) {}

  std::string Key(absl::string_view end) const { return absl::StrCat(prefix_, end); }
  int64_t Size(absl::string_view end, int64_t otherwise = 0) {
    const int64_t size = file_.Integer(Key(end)).value_or(otherwise);
    if (size >= 1 && size <= kSizeMax) return size;
    status_.Update(absl::InvalidArgumentError(
        absl::StrCat(Key(end), size == 0 ? " is missing, or no single number" : absl::StrCat(" is ", size))));
    return 1;
  }
  float Real(absl::string_view end, double otherwise) const {
    return static_cast<float>(file_.Real(Key(end)).value_or(otherwise));
  }
  // A size that must be the one that we take for granted where it is left out.
  void Require(absl::string_view end, int64_t size) {
    const int64_t value = file_.Integer(Key(end)).value_or(size);
    if (value == size) return;
    status_.Update(
        absl::UnimplementedError(absl::StrCat(Key(end), " is ", value, "; only ", size, " is supported here")));
  }
  absl::string_view Text(absl::string_view end) const { return file_.Text(Key(end)).value_or(""); }
  void RequireText(absl::string_view end, absl::string_view text) {
    const absl::string_view value = file_.Text(Key(end)).value_or(text);
    if (value == text) return;
    status_.Update(
        absl::UnimplementedError(absl::StrCat(Key(end), " is '", value, "'; only '", text, "' is supported")));
  }
  const absl::Status& status() const { return status_; }

 private:
  const Gguf& file_;
  const std::string prefix_;
  absl::Status status_;
};

bool Has(const Gguf& file, absl::string_view tensor) { return file.tensors().contains(tensor); }

absl::StatusOr<int64_t> VocabularyOf(const Gguf& file) {
  const auto table = file.tensors().find("token_embd.weight");
  if (table == file.tensors().end()) return absl::NotFoundError("the tensor 'token_embd.weight' is missing");
  return table->second.shape.front();
}

absl::StatusOr<LayerGraph> Gpt2Of(const Gguf& file, int64_t vocabulary) {
  Values values(file, "gpt2");
  Gpt2Model model{.sizes = {.layers = values.Size("block_count"),
                            .channels = values.Size("embedding_length"),
                            .heads = values.Size("attention.head_count"),
                            .width = values.Size("feed_forward_length"),
                            .vocabulary = vocabulary,
                            .positions = values.Size("context_length"),
                            .tied = !Has(file, "output.weight"),
                            .bias = Has(file, "blk.0.attn_qkv.bias")},
                  .norm_epsilon = values.Real("attention.layer_norm_epsilon", 1e-5)};
  RETURN_IF_ERROR(values.status());
  return GraphOf(model);
}

absl::StatusOr<LayerGraph> LlamaOf(const Gguf& file, int64_t vocabulary) {
  Values values(file, "llama");
  const int64_t heads = values.Size("attention.head_count"), channels = values.Size("embedding_length");
  const int64_t head_size = values.Size("attention.key_length", std::max<int64_t>(1, channels / heads));
  LlamaModel model{.sizes = {.layers = values.Size("block_count"),
                             .channels = channels,
                             .heads = heads,
                             .kv_heads = values.Size("attention.head_count_kv", heads),
                             .head_size = head_size,
                             .width = values.Size("feed_forward_length"),
                             .vocabulary = vocabulary,
                             .max_sequence = values.Size("context_length"),
                             .rope_theta = values.Real("rope.freq_base", 10000),
                             .norm_epsilon = values.Real("attention.layer_norm_rms_epsilon", 1e-5),
                             .tied = !Has(file, "output.weight")},
                   .attention_bias = Has(file, "blk.0.attn_q.bias"),
                   .mlp_bias = Has(file, "blk.0.ffn_up.bias")};
  values.Require("attention.value_length", head_size);
  values.Require("rope.dimension_count", head_size);
  values.Require("expert_count", 0);
  if (values.Text("rope.scaling.type") == "linear") {
    model.rope_factor = values.Real("rope.scaling.factor", 1);
  } else {
    values.RequireText("rope.scaling.type", "none");
  }
  RETURN_IF_ERROR(values.status());
  if (Has(file, "rope_freqs.weight")) {
    return absl::UnimplementedError(
        "rotary frequencies of its own, in the tensor 'rope_freqs.weight', are not supported; the same model as a "
        "folder of "
        "Hugging Face's has them as rope_scaling, which is");
  }
  return GraphOf(model);
}

}  // namespace

absl::StatusOr<LayerGraph> GraphOf(const Gguf& file) {
  const absl::string_view architecture = file.Text("general.architecture").value_or("");
  if (architecture != "llama" && architecture != "gpt2") {
    return absl::UnimplementedError(
        absl::StrCat("general.architecture '", architecture, "' is not supported; supported are llama and gpt2"));
  }
  // Each block has several: no graph is made of blocks that only a number claims.
  const std::string blocks = absl::StrCat(architecture, ".block_count");
  if (const int64_t count = file.Integer(blocks).value_or(0); count > static_cast<int64_t>(file.tensors().size())) {
    return absl::InvalidArgumentError(
        absl::StrCat(blocks, " is ", count, ", but there are only ", file.tensors().size(), " tensors"));
  }
  ASSIGN_OR_RETURN(const int64_t vocabulary, VocabularyOf(file));
  return architecture == "gpt2" ? Gpt2Of(file, vocabulary) : LlamaOf(file, vocabulary);
}

std::vector<int32_t> EndTokensOf(const Gguf& file) {
  std::vector<int32_t> ends;
  for (const absl::string_view key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
    const int64_t id = file.Integer(key).value_or(-1);
    if (id < 0 || id > INT32_MAX || std::count(ends.begin(), ends.end(), id) > 0) continue;
    ends.push_back(static_cast<int32_t>(id));
  }
  return ends;
}

}  // namespace sluice
