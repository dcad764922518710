// Text to token ids and back: bytes, or byte-level byte-pair encoding as tokenizer.json describes it (the types that
// GPT-2, Llama 3 and SmolLM are of).
//
// Any bytes that the vocabulary has tokens for round-trip: Decode(Encode(text)) == text. A byte that its training text
// never had (SmolLM2's misses 0x04 and 20 others, most of them no part of UTF-8) may have none and is left out.
// Threads: a Tokenizer is immutable; an Encoder belongs to one thread and must not outlive it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "runtime/tokenizer/byte_pairs.h"
#include "runtime/tokenizer/pre_tokenizer.h"

namespace sluice {

// A token that stands for something beside the text: "<|endoftext|>".
struct AddedToken {
  int32_t id = 0;
  std::string content;
  friend bool operator==(const AddedToken&, const AddedToken&) = default;
};

// Whether text that spells an added token becomes it. Text of others, which may spell anything, is kLiteral.
enum class AddedTokens : uint8_t { kLiteral, kRecognized };

// What a tokenizer is made of.
struct TokenizerParts {
  std::vector<std::string> tokens;  // id -> its bytes; of added tokens their content
  std::vector<std::pair<int32_t, int32_t>> merges;
  bool whole_pieces = false;          // BytePairs::Create
  std::vector<std::string> patterns;  // PreTokenizer::Compile
  bool space_first = false;           // text that doesn't begin with whitespace gets a space before it
  std::vector<AddedToken> added;
  std::vector<int32_t> prefix, suffix;  // what a document begins and ends with ("<|begin_of_text|>")
  friend bool operator==(const TokenizerParts&, const TokenizerParts&) = default;
};

class Tokenizer {
 public:
  // Every byte is its own token: a vocabulary of 256.
  static Tokenizer Bytes();
  // INVALID_ARGUMENT: parts that don't fit together, with what doesn't.
  static absl::StatusOr<Tokenizer> Create(TokenizerParts parts);
  // A tokenizer.json, or a folder that has one. Errors name the file, and what of it isn't supported.
  static absl::StatusOr<Tokenizer> Open(const std::string& path);

  const TokenizerParts& parts() const { return parts_; }
  int64_t vocabulary() const { return static_cast<int64_t>(parts_.tokens.size()); }
  absl::Span<const AddedToken> added() const { return parts_.added; }
  absl::Span<const int32_t> prefix() const { return parts_.prefix; }
  absl::Span<const int32_t> suffix() const { return parts_.suffix; }
  // The id of an added token; nothing: it has no such token.
  std::optional<int32_t> FindAdded(absl::string_view content) const;
  // The token that ends a document, under one of the names that are in use for it.
  std::optional<AddedToken> EndOfText() const;
  // Appends the bytes of a token. REQUIRES: 0 <= id < vocabulary().
  void AppendBytes(int32_t id, std::string* text) const { *text += parts_.tokens[static_cast<size_t>(id)]; }
  std::string Decode(absl::Span<const int32_t> ids) const;

  // A place in text at which it may be cut and its two parts encoded apart with the same result, at or after `from`:
  // behind a line that ends in a letter and before one that begins with one. npos: there is none, or the patterns
  // aren't those for which this holds.
  size_t FindCut(absl::string_view text, size_t from) const;

  class Encoder {
   public:
    explicit Encoder(const Tokenizer& tokenizer);
    // Appends the tokens of `text`, without prefix and suffix.
    absl::Status Encode(absl::string_view text, AddedTokens added, std::vector<int32_t>* ids);

   private:
    absl::Status EncodePlain(absl::string_view text, std::vector<int32_t>* ids);
    const Tokenizer& tokenizer_;
    PreTokenizer::Splitter splitter_;
    BytePairEncoder pairs_;
  };

 private:
  Tokenizer() = default;
  // The longest added token that the text has at `place`; null: none.
  const AddedToken* AddedAt(absl::string_view text, size_t place) const;

  TokenizerParts parts_;
  BytePairs pairs_;
  PreTokenizer pre_tokenizer_;
  std::array<std::vector<int>, 256> added_by_byte_;  // by first byte, the longest first: places in parts_.added
  bool lines_can_be_cut_ = false;
};

// A tokenizer.json's content (Hugging Face's format). Errors name the part that isn't understood, or isn't supported.
absl::StatusOr<TokenizerParts> ParseTokenizerJson(absl::string_view text);
// The content of a tokenizer.json that is read as these parts.
std::string FormatTokenizerJson(const TokenizerParts& parts);

}  // namespace sluice
