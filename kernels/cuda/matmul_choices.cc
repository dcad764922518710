#include "kernels/cuda/matmul_choices.h"

#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

namespace sluice::cuda {
namespace {

constexpr absl::string_view kTitle = "matmul-choices-1";  // with the version of this format
constexpr absl::string_view kEpilogues[] = {"none", "bias", "bias_gradient"};
constexpr absl::string_view kTransposes = "NT";
constexpr size_t kShapeWords = 12;
constexpr size_t kWords = kShapeWords + 3;

bool ReadType(absl::string_view word, DType* type) {
  *type = word == "bf16" ? DType::kBF16 : DType::kF32;
  return word == Name(*type);
}

bool ReadTransposes(absl::string_view word, MatmulShape* shape) {
  if (word.size() != 2) return false;
  const size_t a = kTransposes.find(word[0]), b = kTransposes.find(word[1]);
  shape->transpose_a = static_cast<Transpose>(a), shape->transpose_b = static_cast<Transpose>(b);
  return a != absl::string_view::npos && b != absl::string_view::npos;
}

bool ReadEpilogue(absl::string_view word, Epilogue* epilogue) {
  for (size_t i = 0; i < std::size(kEpilogues); ++i) {
    *epilogue = static_cast<Epilogue>(i);
    if (kEpilogues[i] == word) return true;
  }
  return false;
}

bool ReadAlgorithm(absl::string_view word, std::array<uint64_t, 8>* algorithm) {
  constexpr size_t kDigits = 16;
  if (word.size() != algorithm->size() * kDigits) return false;
  for (size_t i = 0; i < algorithm->size(); ++i) {
    if (!absl::SimpleHexAtoi(word.substr(i * kDigits, kDigits), &(*algorithm)[i])) return false;
  }
  return true;
}

bool ReadLine(absl::string_view line, MatmulShape* shape, MatmulChoice* choice) {
  const std::vector<absl::string_view> words = absl::StrSplit(line, ' ');
  if (words.size() != kWords) return false;
  const auto number = [&words](size_t word, auto* value) { return absl::SimpleAtoi(words[word], value); };
  return ReadTransposes(words[0], shape) && number(1, &shape->m) && number(2, &shape->n) && number(3, &shape->k) &&
         ReadType(words[4], &shape->in) && ReadType(words[5], &shape->out) &&
         ReadEpilogue(words[6], &shape->epilogue) && number(7, &shape->beta) && number(8, &shape->lda) &&
         number(9, &shape->ldb) && number(10, &shape->ldd) && number(11, &shape->alignment) &&
         number(12, &choice->fused) && number(13, &choice->workspace_bytes) &&
         ReadAlgorithm(words[14], &choice->algorithm);
}

absl::Status WrongLine(const std::string& file, size_t line, absl::string_view expected) {
  return absl::InvalidArgumentError(
      absl::StrCat(file, ":", line, ": expected ", expected, "; measure the choices anew, or do without the file"));
}

}  // namespace

std::string ToText(const MatmulShape& shape) {
  const char transposes[] = {kTransposes[static_cast<size_t>(shape.transpose_a)],
                             kTransposes[static_cast<size_t>(shape.transpose_b)], 0};
  return absl::StrCat(transposes, " ", shape.m, " ", shape.n, " ", shape.k, " ", Name(shape.in), " ", Name(shape.out),
                      " ", kEpilogues[static_cast<size_t>(shape.epilogue)], " ", shape.beta, " ", shape.lda, " ",
                      shape.ldb, " ", shape.ldd, " ", shape.alignment);
}

std::string ToText(const MatmulChoices& choices) {
  std::string text = absl::StrCat(kTitle, " ", choices.architecture, " ", choices.library_version, "\n");
  for (const auto& [shape, choice] : choices.of) {
    absl::StrAppend(&text, ToText(shape), " ", choice.fused, " ", choice.workspace_bytes, " ");
    for (const uint64_t word : choice.algorithm) absl::StrAppendFormat(&text, "%016x", word);
    absl::StrAppend(&text, "\n");
  }
  return text;
}

absl::StatusOr<MatmulChoices> MatmulChoicesFromText(absl::string_view text, const std::string& file) {
  MatmulChoices choices;
  const std::vector<absl::string_view> lines = absl::StrSplit(text, '\n');
  const std::vector<absl::string_view> title = absl::StrSplit(lines.front(), ' ');
  if (title.size() != 3 || title[0] != kTitle || !absl::SimpleAtoi(title[2], &choices.library_version)) {
    return WrongLine(file, 1, absl::StrCat(kTitle, " ARCHITECTURE VERSION"));
  }
  choices.architecture = std::string(title[1]);
  for (size_t i = 1; i < lines.size(); ++i) {
    if (lines[i].empty()) continue;
    MatmulShape shape;
    MatmulChoice choice;
    if (!ReadLine(lines[i], &shape, &choice)) return WrongLine(file, i + 1, "a product, its flags and its algorithm");
    choices.of.emplace(shape, choice);
  }
  return choices;
}

absl::StatusOr<std::string> MergeMatmulChoices(absl::Span<const std::string> texts) {
  if (texts.empty()) return absl::InvalidArgumentError("no GPU measured anything");
  MatmulChoices all;
  for (const std::string& text : texts) {
    absl::StatusOr<MatmulChoices> one = MatmulChoicesFromText(text, "measured choices");
    if (!one.ok()) return one.status();
    if (all.architecture.empty())
      std::tie(all.architecture, all.library_version) = std::tie(one->architecture, one->library_version);
    if (all.architecture != one->architecture || all.library_version != one->library_version) {
      return absl::InvalidArgumentError(absl::StrCat("algorithms of GPUs of two kinds, ", all.architecture, " and ",
                                                     one->architecture, ", can't be in one file"));
    }
    all.of.merge(one->of);
  }
  return ToText(all);
}

}  // namespace sluice::cuda
