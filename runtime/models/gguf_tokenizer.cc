#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "runtime/models/gguf_model.h"
#include "runtime/tokenizer/byte_alphabet.h"
#include "runtime/tokenizer/pre_tokenizer.h"

namespace sluice {
namespace {

// Of tokenizer.ggml.token_type.
constexpr int64_t kControl = 3, kUserDefined = 4;

class Reader {
 public:
  explicit Reader(const Gguf& file) : file_(file) {}

  absl::StatusOr<TokenizerParts> Read() {
    if (const auto model = file_.Text("tokenizer.ggml.model").value_or(""); model != "gpt2") {
      return absl::UnimplementedError(absl::StrCat("tokenizer.ggml.model '", model, "' is not supported; gpt2 is"));
    }
    RETURN_IF_ERROR(ReadTokens());
    RETURN_IF_ERROR(ReadMerges());
    RETURN_IF_ERROR(ReadPattern());
    RETURN_IF_ERROR(ReadEnds());
    return std::move(parts_);
  }

 private:
  absl::Status ReadTokens() {
    const auto* const tokens = file_.Texts("tokenizer.ggml.tokens");
    if (tokens == nullptr || tokens->empty()) return absl::InvalidArgumentError("tokenizer.ggml.tokens is missing");
    const auto* const types = file_.Integers("tokenizer.ggml.token_type");
    if (types != nullptr && types->size() != tokens->size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tokenizer.ggml.token_type has ", types->size(), " entries, the tokens are ", tokens->size()));
    }
    for (size_t id = 0; id < tokens->size(); ++id) {
      const absl::string_view text = (*tokens)[id];
      const int64_t type = types == nullptr ? 0 : (*types)[id];
      const bool added = type == kControl || type == kUserDefined;
      if (added) parts_.added.push_back({static_cast<int32_t>(id), std::string(text)});
      parts_.tokens.push_back(added ? std::string(text) : BytesOfAlphabet(text).value_or(std::string(text)));
      ids_.emplace(text, static_cast<int32_t>(id));
    }
    return absl::OkStatus();
  }

  absl::Status ReadMerges() {
    const auto* const merges = file_.Texts("tokenizer.ggml.merges");
    if (merges == nullptr) return absl::InvalidArgumentError("tokenizer.ggml.merges is missing");
    for (const absl::string_view merge : *merges) {
      const size_t space = merge.find(' ', 1);
      const auto left = ids_.find(merge.substr(0, space));
      const auto right = space == absl::string_view::npos ? ids_.end() : ids_.find(merge.substr(space + 1));
      if (left == ids_.end() || right == ids_.end()) {
        return absl::InvalidArgumentError(
            absl::StrCat("tokenizer.ggml.merges has '", merge, "', which are no two tokens"));
      }
      parts_.merges.emplace_back(left->second, right->second);
    }
    return absl::OkStatus();
  }

  // How text is cut, by a name that stands for a pattern.
  absl::Status ReadPattern() {
    const absl::string_view name = file_.Text("tokenizer.ggml.pre").value_or("");
    if (name == "gpt-2") {
      parts_.patterns = {kGpt2Pattern};
    } else if (name == "smollm") {
      parts_.patterns = {kDigitPattern, kGpt2Pattern};
    } else if (name == "llama-bpe" || name == "llama3" || name == "llama-v3") {
      parts_.patterns = {kLlama3Pattern};
      parts_.whole_pieces = true;
    } else {
      return absl::UnimplementedError(
          absl::StrCat("tokenizer.ggml.pre '", name, "' is not supported; gpt-2, llama-bpe and smollm are"));
    }
    return absl::OkStatus();
  }

  absl::Status ReadEnds() {
    const bool llama3 = parts_.whole_pieces;
    for (const auto& [flag, key, otherwise, tokens] :
         {std::tuple("tokenizer.ggml.add_bos_token", "tokenizer.ggml.bos_token_id", llama3, &parts_.prefix),
          {"tokenizer.ggml.add_eos_token", "tokenizer.ggml.eos_token_id", false, &parts_.suffix}}) {
      if (!file_.Flag(flag).value_or(otherwise)) continue;
      const int64_t id = file_.Integer(key).value_or(-1);
      if (id < 0 || id >= static_cast<int64_t>(parts_.tokens.size())) {
        return absl::InvalidArgumentError(absl::StrCat(key, " is ", id, ", which is no token"));
      }
      tokens->push_back(static_cast<int32_t>(id));
    }
    return absl::OkStatus();
  }

  const Gguf& file_;
  TokenizerParts parts_;
  absl::flat_hash_map<absl::string_view, int32_t> ids_;
};

}  // namespace

absl::StatusOr<TokenizerParts> TokenizerPartsOf(const Gguf& file) { return Reader(file).Read(); }

}  // namespace sluice
