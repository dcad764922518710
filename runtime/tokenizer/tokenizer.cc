#include "runtime/tokenizer/tokenizer.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "runtime/data/mapped_file.h"

namespace sluice {
namespace {

// What documents end with in the families that are supported.
constexpr absl::string_view kEnds[] = {"<|endoftext|>", "<|end_of_text|>", "</s>"};

}  // namespace

Tokenizer Tokenizer::Bytes() {
  TokenizerParts parts;
  for (int byte = 0; byte < 256; ++byte) parts.tokens.push_back(std::string(1, static_cast<char>(byte)));
  return *Create(std::move(parts));
}

absl::StatusOr<Tokenizer> Tokenizer::Create(TokenizerParts parts) {
  Tokenizer made;
  ASSIGN_OR_RETURN(made.pairs_, BytePairs::Create(parts.tokens, parts.merges, parts.whole_pieces));
  ASSIGN_OR_RETURN(made.pre_tokenizer_, PreTokenizer::Compile(parts.patterns));
  for (size_t i = 0; i < parts.added.size(); ++i) {
    const AddedToken& token = parts.added[i];
    if (token.content.empty())
      return absl::InvalidArgumentError(absl::StrCat("the added token ", token.id, " is empty"));
    made.added_by_byte_[static_cast<unsigned char>(token.content[0])].push_back(static_cast<int>(i));
  }
  for (std::vector<int>& places : made.added_by_byte_) {
    std::stable_sort(places.begin(), places.end(),
                     [&](int a, int b) { return parts.added[a].content.size() > parts.added[b].content.size(); });
  }
  // Each of these cuts behind a line's end that letters surround.
  made.lines_can_be_cut_ =
      std::all_of(parts.patterns.begin(), parts.patterns.end(),
                  [](const std::string& pattern) {
                    return pattern == kGpt2Pattern || pattern == kLlama3Pattern || pattern == kDigitPattern;
                  }) &&
      !parts.space_first;
  made.parts_ = std::move(parts);
  return made;
}

absl::StatusOr<Tokenizer> Tokenizer::Open(const std::string& path) {
  std::error_code ignored;
  const std::string file = std::filesystem::is_directory(path, ignored) ? path + "/tokenizer.json" : path;
  ASSIGN_OR_RETURN(const MappedFile map, MappedFile::Open(file));
  auto parts = ParseTokenizerJson(map.text());
  if (!parts.ok()) return Annotate(parts.status(), file);
  auto made = Create(*std::move(parts));
  if (!made.ok()) return Annotate(made.status(), file);
  return made;
}

std::optional<int32_t> Tokenizer::FindAdded(absl::string_view content) const {
  for (const AddedToken& token : parts_.added) {
    if (token.content == content) return token.id;
  }
  return std::nullopt;
}

std::optional<AddedToken> Tokenizer::EndOfText() const {
  for (const absl::string_view name : kEnds) {
    if (const auto id = FindAdded(name)) return AddedToken{*id, std::string(name)};
  }
  return std::nullopt;
}

std::string Tokenizer::Decode(absl::Span<const int32_t> ids) const {
  std::string text;
  for (const int32_t id : ids) AppendBytes(id, &text);
  return text;
}

size_t Tokenizer::FindCut(absl::string_view text, size_t from) const {
  if (!lines_can_be_cut_) return absl::string_view::npos;
  for (size_t end = text.find('\n', std::max<size_t>(from, 2) - 1); end != absl::string_view::npos;
       end = text.find('\n', end + 1)) {
    if (end + 1 < text.size() && absl::ascii_isalpha(text[end - 1]) && absl::ascii_isalpha(text[end + 1]))
      return end + 1;
  }
  return absl::string_view::npos;
}

const AddedToken* Tokenizer::AddedAt(absl::string_view text, size_t place) const {
  for (const int i : added_by_byte_[static_cast<unsigned char>(text[place])]) {
    if (absl::StartsWith(text.substr(place), parts_.added[i].content)) return &parts_.added[i];
  }
  return nullptr;
}

Tokenizer::Encoder::Encoder(const Tokenizer& tokenizer)
    : tokenizer_(tokenizer), splitter_(tokenizer.pre_tokenizer_), pairs_(tokenizer.pairs_) {}

absl::Status Tokenizer::Encoder::Encode(absl::string_view text, AddedTokens added, std::vector<int32_t>* ids) {
  if (added == AddedTokens::kLiteral) return EncodePlain(text, ids);
  size_t done = 0;
  for (size_t place = 0; place < text.size();) {
    const AddedToken* const token = tokenizer_.AddedAt(text, place);
    if (token == nullptr) {
      ++place;
      continue;
    }
    RETURN_IF_ERROR(EncodePlain(text.substr(done, place - done), ids));
    ids->push_back(token->id);
    done = place += token->content.size();
  }
  return EncodePlain(text.substr(done), ids);
}

absl::Status Tokenizer::Encoder::EncodePlain(absl::string_view text, std::vector<int32_t>* ids) {
  if (text.empty()) return absl::OkStatus();
  const auto encode = [&](absl::string_view piece) { pairs_.Encode(piece, ids); };
  if (tokenizer_.parts_.space_first && !absl::ascii_isspace(text[0])) {
    return splitter_.Split(absl::StrCat(" ", text), encode);
  }
  return splitter_.Split(text, encode);
}

}  // namespace sluice
