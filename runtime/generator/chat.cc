#include "runtime/generator/chat.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace sluice {
namespace {

// The words that a ChatML template gives the system where nobody else does: plain text between its marks.
std::string DefaultSystem(absl::string_view text) {
  constexpr absl::string_view kBegin = "<|im_start|>system", kEnd = "<|im_end|>";
  const size_t begin = text.find(kBegin);
  if (begin == absl::string_view::npos) return "";
  absl::string_view words = text.substr(begin + kBegin.size());
  words = words.substr(0, words.find(kEnd));
  // The line's end, as it is or as it stands in a string of Jinja's.
  if (absl::StartsWith(words, "\n")) {
    words.remove_prefix(1);
  } else if (absl::StartsWith(words, "\\n")) {
    words.remove_prefix(2);
  }
  const bool code = words.find_first_of("{}'\"") != absl::string_view::npos;
  return code ? "" : std::string(words);
}

}  // namespace

absl::StatusOr<ChatTemplate> ChatTemplate::Create(absl::string_view text) {
  ChatTemplate chat;
  if (absl::StrContains(text, "<|im_start|>")) {
    chat.before_role_ = "<|im_start|>";
    chat.after_role_ = "\n";
    chat.end_ = "<|im_end|>";
    chat.after_end_ = "\n";
    chat.system_ = DefaultSystem(text);
  } else if (absl::StrContains(text, "<|start_header_id|>")) {
    chat.before_role_ = "<|start_header_id|>";
    chat.after_role_ = "<|end_header_id|>\n\n";
    chat.end_ = "<|eot_id|>";
  } else {
    return absl::UnimplementedError(
        "the model's chat template is neither ChatML nor Llama 3's, the styles that are known here: give whole "
        "prompts, "
        "with --raw");
  }
  return chat;
}

absl::Status ChatTemplate::Encode(absl::Span<const ChatMessage> messages, Tokenizer::Encoder* encoder,
                                  std::vector<int32_t>* tokens) const {
  const auto begin = [&](absl::string_view role) {
    return encoder->Encode(absl::StrCat(before_role_, role, after_role_), AddedTokens::kRecognized, tokens);
  };
  const auto add = [&](const ChatMessage& message) -> absl::Status {
    RETURN_IF_ERROR(begin(message.role));
    RETURN_IF_ERROR(encoder->Encode(message.content, AddedTokens::kLiteral, tokens));
    return encoder->Encode(absl::StrCat(end_, after_end_), AddedTokens::kRecognized, tokens);
  };
  const bool has_system = !messages.empty() && messages[0].role == "system";
  if (!has_system && !system_.empty()) RETURN_IF_ERROR(add({"system", system_}));
  for (const ChatMessage& message : messages) RETURN_IF_ERROR(add(message));
  return begin("assistant");
}

}  // namespace sluice
