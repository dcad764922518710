#include "runtime/generator/answer_text.h"

#include <algorithm>

#include "absl/strings/match.h"

namespace sluice {
namespace {

// Bytes at the end of a text that begin a character of UTF-8 whose others haven't come.
size_t BegunCharacter(absl::string_view text) {
  for (size_t back = 1; back <= std::min<size_t>(3, text.size()); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if ((byte & 0xC0) == 0x80) continue;  // inside of one
    const size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
    return length > back ? back : 0;
  }
  return 0;
}

}  // namespace

std::string AnswerText::Add(absl::Span<const int32_t> tokens) {
  for (const int32_t token : tokens) {
    if (stopped_) break;
    if (std::find(hidden_.begin(), hidden_.end(), token) != hidden_.end()) continue;
    // A model may have more rows than its tokenizer has tokens.
    if (token < tokenizer_->vocabulary()) tokenizer_->AppendBytes(token, &text_);
    stopped_ = FindStop();
  }
  return Until(stopped_ ? text_.size() : Certain());
}

std::string AnswerText::Finish() { return Until(text_.size()); }

// Cuts the text off at the first stop string.
bool AnswerText::FindStop() {
  size_t first = std::string::npos;
  for (const std::string& stop : stops_) {
    if (!stop.empty()) first = std::min(first, text_.find(stop, given_));
  }
  if (first == std::string::npos) return false;
  text_.resize(first);
  return true;
}

size_t AnswerText::Certain() const {
  size_t held = BegunCharacter(text_);
  for (const std::string& stop : stops_) {
    for (size_t length = std::min(stop.size(), text_.size() - given_); length > held; --length) {
      if (!absl::EndsWith(text_, absl::string_view(stop).substr(0, length))) continue;
      held = length;
      break;
    }
  }
  return std::max(given_, text_.size() - held);
}

std::string AnswerText::Until(size_t end) {
  std::string part = text_.substr(given_, end - given_);
  given_ = std::max(given_, end);
  return part;
}

}  // namespace sluice
