// Hugging Face's tokenizer.json, as far as byte-level byte-pair encoding needs it. Whatever would change the tokens and
// isn't understood is refused by name.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "nlohmann/json.hpp"
#include "runtime/tokenizer/byte_alphabet.h"
#include "runtime/tokenizer/tokenizer.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

// No vocabulary in use comes near; and ids are dense, but for some that models keep free.
constexpr int64_t kTokensMax = 1 << 22;
constexpr int64_t kFreeIdsMax = 4096;
constexpr char kSupported[] = "supported: byte-level BPE as of GPT-2, Llama 3 and SmolLM";

absl::Status NotSupported(absl::string_view what) {
  return absl::UnimplementedError(absl::StrCat(what, " is not supported (", kSupported, ")"));
}

absl::Status Malformed(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(what, "; is this a tokenizer.json?"));
}

// The member, or null where it isn't there.
const Json& At(const Json& object, const char* name) {
  static const Json kNull;
  if (!object.is_object()) return kNull;
  const auto found = object.find(name);
  return found == object.end() ? kNull : *found;
}

std::string TextAt(const Json& object, const char* name) {
  const Json& member = At(object, name);
  return member.is_string() ? member.get<std::string>() : std::string();
}

bool IsSet(const Json& object, const char* name) {
  const Json& member = At(object, name);
  return member.is_boolean() && member.get<bool>();
}

class Reader {
 public:
  absl::StatusOr<TokenizerParts> Read(const Json& root) {
    const Json& model = At(root, "model");
    // Older files name no type.
    if (const std::string type = TextAt(model, "type");
        type != "BPE" && !(type.empty() && At(model, "merges").is_array())) {
      return NotSupported(absl::StrCat("model.type '", type, "'"));
    }
    if (IsSet(model, "byte_fallback")) return NotSupported("model.byte_fallback (a SentencePiece vocabulary)");
    for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      if (!TextAt(model, name).empty()) return NotSupported(absl::StrCat("model.", name));
    }
    if (!At(root, "normalizer").is_null()) {
      return NotSupported(absl::StrCat("normalizer '", TextAt(At(root, "normalizer"), "type"), "'"));
    }
    parts_.whole_pieces = IsSet(model, "ignore_merges");
    const auto named = static_cast<int64_t>(At(model, "vocab").size() + At(root, "added_tokens").size());
    ids_max_ = std::min(kTokensMax, 2 * named + kFreeIdsMax);
    RETURN_IF_ERROR(ReadVocabulary(At(model, "vocab")));
    RETURN_IF_ERROR(ReadMerges(At(model, "merges")));
    RETURN_IF_ERROR(ReadAdded(At(root, "added_tokens")));
    RETURN_IF_ERROR(ReadPreTokenizer(At(root, "pre_tokenizer")));
    if (!byte_level_) return NotSupported("a pre_tokenizer without ByteLevel");
    RETURN_IF_ERROR(ReadPostProcessor(At(root, "post_processor")));
    return std::move(parts_);
  }

 private:
  absl::StatusOr<int32_t> ReadId(const Json& id, absl::string_view of) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= ids_max_) {
      return Malformed(absl::StrCat("the id of '", of, "' is no number from 0 to ", ids_max_ - 1));
    }
    const auto value = id.get<int32_t>();
    if (static_cast<size_t>(value) >= parts_.tokens.size()) parts_.tokens.resize(static_cast<size_t>(value) + 1);
    return value;
  }

  absl::Status ReadVocabulary(const Json& vocabulary) {
    if (!vocabulary.is_object() || vocabulary.empty()) return Malformed("model.vocab is missing");
    for (const auto& [text, id] : vocabulary.items()) {
      ASSIGN_OR_RETURN(const int32_t token, ReadId(id, text));
      // What isn't written in the alphabet of bytes is an added token.
      parts_.tokens[token] = BytesOfAlphabet(text).value_or(text);
      ids_.emplace(text, token);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<int32_t> Find(const std::string& text, size_t rank) const {
    const auto found = ids_.find(text);
    if (found == ids_.end()) {
      return Malformed(absl::StrCat("model.merges[", rank, "] names '", text, "', which model.vocab doesn't have"));
    }
    return found->second;
  }

  // "left right", or ["left", "right"].
  absl::Status ReadMerges(const Json& merges) {
    if (!merges.is_array()) return Malformed("model.merges is missing");
    for (size_t rank = 0; rank < merges.size(); ++rank) {
      const Json& merge = merges[rank];
      std::string left, right;
      if (merge.is_string()) {
        const auto& text = merge.get_ref<const std::string&>();
        const size_t space = text.find(' ');
        if (space != std::string::npos) left = text.substr(0, space), right = text.substr(space + 1);
      } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
        left = merge[0], right = merge[1];
      }
      if (left.empty() || right.empty())
        return Malformed(absl::StrCat("model.merges[", rank, "] is no pair of tokens"));
      ASSIGN_OR_RETURN(const int32_t first, Find(left, rank));
      ASSIGN_OR_RETURN(const int32_t second, Find(right, rank));
      parts_.merges.emplace_back(first, second);
    }
    return absl::OkStatus();
  }

  absl::Status ReadAdded(const Json& added) {
    if (added.is_null()) return absl::OkStatus();
    if (!added.is_array()) return Malformed("added_tokens is no list");
    for (const Json& token : added) {
      const std::string content = TextAt(token, "content");
      if (content.empty()) return Malformed("an entry of added_tokens has no content");
      for (const char* name : {"single_word", "lstrip", "rstrip"}) {
        if (IsSet(token, name)) return NotSupported(absl::StrCat("added token '", content, "' with ", name));
      }
      ASSIGN_OR_RETURN(const int32_t id, ReadId(At(token, "id"), content));
      parts_.tokens[id] = content;
      ids_[content] = id;
      parts_.added.push_back({id, content});
    }
    return absl::OkStatus();
  }

  absl::Status ReadPreTokenizer(const Json& step) {
    const std::string type = TextAt(step, "type");
    if (type == "Sequence") {
      const Json& steps = At(step, "pretokenizers");
      if (!steps.is_array()) return Malformed("pre_tokenizer.pretokenizers is no list");
      for (const Json& inner : steps) {
        if (TextAt(inner, "type") == "Sequence") return NotSupported("a pre_tokenizer's sequence within one");
        RETURN_IF_ERROR(ReadPreTokenizer(inner));
      }
      return absl::OkStatus();
    }
    if (byte_level_) return NotSupported("a pre_tokenizer's step behind ByteLevel");
    if (type == "ByteLevel") {
      byte_level_ = true;
      parts_.space_first = IsSet(step, "add_prefix_space");
      if (parts_.space_first && !parts_.patterns.empty()) return NotSupported("add_prefix_space behind other steps");
      if (!At(step, "use_regex").is_boolean() || IsSet(step, "use_regex")) parts_.patterns.push_back(kGpt2Pattern);
      return absl::OkStatus();
    }
    if (type == "Digits") {
      parts_.patterns.push_back(IsSet(step, "individual_digits") ? kDigitPattern : "\\p{N}+");
      return absl::OkStatus();
    }
    if (type == "Split") return ReadSplit(step);
    return NotSupported(absl::StrCat("pre_tokenizer '", type, "'"));
  }

  absl::Status ReadSplit(const Json& step) {
    if (const std::string behavior = TextAt(step, "behavior"); behavior != "Isolated") {
      return NotSupported(absl::StrCat("pre_tokenizer Split with behavior '", behavior, "'"));
    }
    if (IsSet(step, "invert")) return NotSupported("pre_tokenizer Split with invert");
    const Json& pattern = At(step, "pattern");
    const std::string regex = TextAt(pattern, "Regex");
    if (regex.empty()) return NotSupported("pre_tokenizer Split without pattern.Regex");
    parts_.patterns.push_back(regex);
    return absl::OkStatus();
  }

  // TemplateProcessing says what a document begins and ends with; ByteLevel only touches offsets.
  absl::Status ReadPostProcessor(const Json& step) {
    if (step.is_null()) return absl::OkStatus();
    const std::string type = TextAt(step, "type");
    if (type == "ByteLevel") return absl::OkStatus();
    if (type == "Sequence") {
      for (const Json& inner : At(step, "processors")) {
        if (TextAt(inner, "type") == "Sequence") return NotSupported("a post_processor's sequence within one");
        RETURN_IF_ERROR(ReadPostProcessor(inner));
      }
      return absl::OkStatus();
    }
    if (type != "TemplateProcessing") return NotSupported(absl::StrCat("post_processor '", type, "'"));
    bool behind_text = false;
    for (const Json& part : At(step, "single")) {
      if (part.is_object() && part.contains("Sequence")) {
        behind_text = true;
        continue;
      }
      const std::string name = TextAt(At(part, "SpecialToken"), "id");
      const auto found = ids_.find(name);
      if (found == ids_.end()) return Malformed(absl::StrCat("post_processor names '", name, "', which is no token"));
      (behind_text ? parts_.suffix : parts_.prefix).push_back(found->second);
    }
    return absl::OkStatus();
  }

  TokenizerParts parts_;
  absl::flat_hash_map<std::string, int32_t> ids_;
  int64_t ids_max_ = 0;
  bool byte_level_ = false;
};

}  // namespace

absl::StatusOr<TokenizerParts> ParseTokenizerJson(absl::string_view text) {
  const Json root = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (root.is_discarded() || !root.is_object()) return Malformed("no JSON object");
  return Reader().Read(root);
}

}  // namespace sluice
