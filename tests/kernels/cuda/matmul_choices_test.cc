// Choices of algorithms as text: what is written is read, and what is wrong is said with its line.
#include "kernels/cuda/matmul_choices.h"

#include <random>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice::cuda {
namespace {

using testing::HasSubstr;

MatmulChoices RandomChoices(int seed) {
  std::mt19937_64 random(seed);
  MatmulChoices choices{.architecture = "sm_90", .library_version = 130100};
  for (int i = 0; i < 20; ++i) {
    const auto number = [&] { return static_cast<int64_t>(random() % 100000); };
    const MatmulShape shape{.m = number(),
                            .n = number(),
                            .k = number(),
                            .transpose_a = static_cast<Transpose>(random() % 2),
                            .transpose_b = static_cast<Transpose>(random() % 2),
                            .in = static_cast<DType>(random() % 2),
                            .out = static_cast<DType>(random() % 2),
                            .epilogue = static_cast<Epilogue>(random() % 3),
                            .beta = static_cast<int>(random() % 2),
                            .lda = number(),
                            .ldb = number(),
                            .ldd = number(),
                            .alignment = 1 << random() % 5};
    MatmulChoice& choice = choices.of[shape];
    for (uint64_t& word : choice.algorithm) word = random();
    choice.workspace_bytes = number();
    choice.fused = static_cast<int>(random() % 2);
  }
  return choices;
}

TEST(MatmulChoices, WhatIsWrittenIsRead) {
  for (int seed = 0; seed < 20; ++seed) {
    const MatmulChoices choices = RandomChoices(seed);
    const auto read = MatmulChoicesFromText(ToText(choices), "file");
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(*read, choices);
    EXPECT_EQ(ToText(*read), ToText(choices));
  }
}

TEST(MatmulChoices, OfSeveralGpusOfOneKindAreOneFile) {
  const MatmulChoices a = RandomChoices(1), b = RandomChoices(2);
  const auto both = MergeMatmulChoices({ToText(a), ToText(b), ToText(a)});
  ASSERT_TRUE(both.ok()) << both.status();
  EXPECT_EQ(MatmulChoicesFromText(*both, "both")->of.size(), a.of.size() + b.of.size());
  MatmulChoices other = b;
  other.architecture = "sm_80";
  EXPECT_THAT(std::string(MergeMatmulChoices({ToText(a), ToText(other)}).status().message()), HasSubstr("sm_80"));
  EXPECT_FALSE(MergeMatmulChoices({}).ok());
}

TEST(MatmulChoices, AShapeReadsLikeACall) {
  EXPECT_EQ(ToText(MatmulShape{.m = 3072,
                               .n = 256,
                               .k = 768,
                               .transpose_a = Transpose::kYes,
                               .in = DType::kBF16,
                               .out = DType::kBF16,
                               .epilogue = Epilogue::kBias,
                               .lda = 768,
                               .ldb = 768,
                               .ldd = 3072}),
            "TN 3072 256 768 bf16 bf16 bias 0 768 768 3072 16");
}

TEST(MatmulChoices, WhatIsWrongIsSaidWithItsLine) {
  const auto error = [](const std::string& text) {
    return std::string(MatmulChoicesFromText(text, "choices.txt").status().message());
  };
  EXPECT_THAT(error(""), HasSubstr("choices.txt:1"));
  EXPECT_THAT(error("matmul-choices-2 sm_90 130100\n"), HasSubstr("choices.txt:1"));
  const std::string good = ToText(RandomChoices(1));
  EXPECT_THAT(error(absl::StrCat(good, "TN 1 2 3\n")), HasSubstr("choices.txt:22"));
  std::mt19937 random(3);
  for (int i = 0; i < 300; ++i) {  // cut and changed in any place: an error or other choices, never a crash
    std::string text = good.substr(0, random() % good.size());
    if (!text.empty()) text[random() % text.size()] = static_cast<char>(' ' + random() % 90);
    MatmulChoicesFromText(text, "choices.txt").IgnoreError();
  }
}

}  // namespace
}  // namespace sluice::cuda
