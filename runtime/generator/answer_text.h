// An answer as text while its tokens come: whole characters, without the token that ends it and without a stop string
// or what may still become one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "runtime/tokenizer/tokenizer.h"

namespace sluice {

class AnswerText {
 public:
  // `hidden` tokens are no text. The tokenizer outlives it.
  AnswerText(const Tokenizer* tokenizer, std::vector<int32_t> hidden, std::vector<std::string> stops)
      : tokenizer_(tokenizer), hidden_(std::move(hidden)), stops_(std::move(stops)) {}

  // Returns what is certain by now and was not returned before.
  std::string Add(absl::Span<const int32_t> tokens);
  // No more tokens come: what is left.
  std::string Finish();
  // It has come to a stop string, which is no part of it.
  bool stopped() const { return stopped_; }
  // All of it so far.
  const std::string& text() const { return text_; }

 private:
  bool FindStop();
  size_t Certain() const;
  std::string Until(size_t end);

  const Tokenizer* const tokenizer_;
  const std::vector<int32_t> hidden_;
  const std::vector<std::string> stops_;
  std::string text_;
  size_t given_ = 0;  // of it has been returned
  bool stopped_ = false;
};

}  // namespace sluice
