#define PCRE2_CODE_UNIT_WIDTH 8
#include "runtime/tokenizer/pre_tokenizer.h"

#include <pcre2.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace sluice {

const char kGpt2Pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const char kLlama3Pattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const char kDigitPattern[] = "\\p{N}";

namespace {

std::string PcreMessage(int code) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

const pcre2_code* CodeOf(const std::shared_ptr<const void>& pattern) {
  return static_cast<const pcre2_code*>(pattern.get());
}

}  // namespace

absl::StatusOr<PreTokenizer> PreTokenizer::Compile(const std::vector<std::string>& patterns) {
  PreTokenizer made;
  for (const std::string& pattern : patterns) {
    int error = 0;
    PCRE2_SIZE place = 0;
    // Text may hold any bytes. With this option a match needs no check of the whole text first, which would make the
    // walk over it quadratic.
    pcre2_code* const code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                           PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF, &error, &place, nullptr);
    if (code == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("the pattern '", pattern, "' that cuts text into pieces: at ", place, ": ", PcreMessage(error)));
    }
    made.patterns_.emplace_back(code, [](pcre2_code* code) { pcre2_code_free(code); });
    if (const int status = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE); status != 0) {
      return absl::UnimplementedError(
          absl::StrCat("the pattern '", pattern, "' can't be compiled to machine code: ", PcreMessage(status),
                       " (PCRE2 must be built with JIT, and memory may be made executable)"));
    }
  }
  return made;
}

void PreTokenizer::Splitter::MatchDeleter::operator()(void* match) const {
  pcre2_match_data_free(static_cast<pcre2_match_data*>(match));
}

PreTokenizer::Splitter::Splitter(const PreTokenizer& pre_tokenizer) : pre_tokenizer_(pre_tokenizer) {
  for (const auto& pattern : pre_tokenizer_.patterns_) {
    matches_.emplace_back(pcre2_match_data_create_from_pattern(CodeOf(pattern), nullptr));
  }
}

absl::Status PreTokenizer::Splitter::Split(absl::string_view text, absl::FunctionRef<void(absl::string_view)> take) {
  return SplitFrom(0, text, take);
}

absl::Status PreTokenizer::Splitter::SplitFrom(size_t step, absl::string_view text,
                                               absl::FunctionRef<void(absl::string_view)> take) {
  if (text.empty()) return absl::OkStatus();
  if (step == matches_.size()) {
    take(text);
    return absl::OkStatus();
  }
  const pcre2_code* const code = CodeOf(pre_tokenizer_.patterns_[step]);
  auto* const match = static_cast<pcre2_match_data*>(matches_[step].get());
  size_t done = 0, from = 0;
  while (from < text.size()) {
    const int found =
        pcre2_jit_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from, 0, match, nullptr);
    if (found == PCRE2_ERROR_NOMATCH) break;
    if (found < 0) return absl::ResourceExhaustedError(absl::StrCat("cutting text into pieces: ", PcreMessage(found)));
    const PCRE2_SIZE* const ends = pcre2_get_ovector_pointer(match);
    const size_t begin = ends[0], end = ends[1];
    from = end > begin ? end : end + 1;  // an empty match cuts nothing
    if (end == begin) continue;
    RETURN_IF_ERROR(SplitFrom(step + 1, text.substr(done, begin - done), take));
    RETURN_IF_ERROR(SplitFrom(step + 1, text.substr(begin, end - begin), take));
    done = end;
  }
  return SplitFrom(step + 1, text.substr(done), take);
}

}  // namespace sluice
