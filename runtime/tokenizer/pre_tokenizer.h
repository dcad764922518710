// Cuts text into the pieces that byte-pair encoding never merges across: a sequence of patterns, each of which cuts
// what the ones before it left, at the borders of its matches ("isolated" in Hugging Face's terms).
//
// Threads: immutable; a Splitter, which holds what a match needs, belongs to one thread. Copies share the compiled
// patterns. Patterns are PCRE2's with Unicode properties; bytes that are no UTF-8 match nothing and become pieces of
// their own.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sluice {

class PreTokenizer {
 public:
  // Text is one piece.
  PreTokenizer() = default;
  // INVALID_ARGUMENT: a pattern isn't one, with the place in it.
  static absl::StatusOr<PreTokenizer> Compile(const std::vector<std::string>& patterns);

  class Splitter {
   public:
    explicit Splitter(const PreTokenizer& pre_tokenizer);
    // Calls `take` with each piece, in order; together they are the text. RESOURCE_EXHAUSTED: a pattern needs too much
    // stack for this text.
    absl::Status Split(absl::string_view text, absl::FunctionRef<void(absl::string_view)> take);

   private:
    absl::Status SplitFrom(size_t step, absl::string_view text, absl::FunctionRef<void(absl::string_view)> take);
    struct MatchDeleter {
      void operator()(void* match) const;
    };
    const PreTokenizer& pre_tokenizer_;
    std::vector<std::unique_ptr<void, MatchDeleter>> matches_;  // per step: one split is inside another
  };

 private:
  std::vector<std::shared_ptr<const void>> patterns_;
};

// GPT-2's pattern, which byte-level pre-tokenizers use where they name none.
extern const char kGpt2Pattern[];
// Llama 3's; and each digit apart, which SmolLM's does before GPT-2's.
extern const char kLlama3Pattern[];
extern const char kDigitPattern[];

}  // namespace sluice
