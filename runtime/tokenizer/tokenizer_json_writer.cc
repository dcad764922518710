// A tokenizer as Hugging Face's tokenizer.json, which tokenizer_json.cc reads back as the same.
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "nlohmann/json.hpp"
#include "runtime/tokenizer/byte_alphabet.h"
#include "runtime/tokenizer/tokenizer.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

Json PreTokenizerOf(const TokenizerParts& parts) {
  Json steps = Json::array();
  bool regex = false;
  for (const std::string& pattern : parts.patterns) {
    regex = &pattern == &parts.patterns.back() && pattern == kGpt2Pattern;
    if (regex) break;
    if (pattern == kDigitPattern) {
      steps.push_back({{"type", "Digits"}, {"individual_digits", true}});
    } else {
      steps.push_back(
          {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
    }
  }
  const Json bytes = {
      {"type", "ByteLevel"}, {"add_prefix_space", parts.space_first}, {"trim_offsets", true}, {"use_regex", regex}};
  if (steps.empty()) return bytes;
  steps.push_back(bytes);
  return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

// What a document begins and ends with.
Json PostProcessorOf(const TokenizerParts& parts) {
  if (parts.prefix.empty() && parts.suffix.empty()) {
    return {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", false}, {"use_regex", true}};
  }
  Json single = Json::array(), special = Json::object();
  const auto add = [&](const std::vector<int32_t>& ids) {
    for (const int32_t id : ids) {
      const std::string& name = parts.tokens[static_cast<size_t>(id)];
      single.push_back({{"SpecialToken", {{"id", name}, {"type_id", 0}}}});
      special[name] = {{"id", name}, {"ids", {id}}, {"tokens", {name}}};
    }
  };
  add(parts.prefix);
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  add(parts.suffix);
  Json pair = single;
  pair.push_back({{"Sequence", {{"id", "B"}, {"type_id", 1}}}});
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", special}};
}

Json AddedOf(const TokenizerParts& parts) {
  Json added = Json::array();
  for (const AddedToken& token : parts.added) {
    added.push_back({{"id", token.id},
                     {"content", token.content},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  return added;
}

}  // namespace

std::string FormatTokenizerJson(const TokenizerParts& parts) {
  absl::flat_hash_set<int32_t> added;
  for (const AddedToken& token : parts.added) added.insert(token.id);
  const auto text = [&](int32_t id) {
    const std::string& bytes = parts.tokens[static_cast<size_t>(id)];
    return added.contains(id) ? bytes : AlphabetOfBytes(bytes);
  };
  Json vocabulary = Json::object(), merges = Json::array();
  for (size_t id = 0; id < parts.tokens.size(); ++id) {
    if (!parts.tokens[id].empty()) vocabulary[text(static_cast<int32_t>(id))] = id;
  }
  for (const auto& [left, right] : parts.merges) merges.push_back({text(left), text(right)});
  const Json root = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", AddedOf(parts)},
      {"normalizer", nullptr},
      {"pre_tokenizer", PreTokenizerOf(parts)},
      {"post_processor", PostProcessorOf(parts)},
      {"decoder", {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}}},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", false},
        {"byte_fallback", false},
        {"ignore_merges", parts.whole_pieces},
        {"vocab", std::move(vocabulary)},
        {"merges", std::move(merges)}}}};
  // An added token may spell any bytes.
  return root.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace sluice
