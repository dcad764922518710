// `sluice evaluate` as it is typed. The numbers are those of PyTorch, by
//   sluice checkpoint convert tests/golden/models/llama.gguf --to hf -o FOLDER
//   tools/models/compare.py FOLDER TEXT --sequence 32
#include <filesystem>
#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/tools/verb_test.h"

namespace sluice {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kText[] =
    "In the beginning God created the heaven and the earth. And the earth was without form, and void; and darkness was "
    "upon the face of the deep.\nAnd the Spirit of God moved upon the face of the waters. And God said, Let there be "
    "light: and there was light.\n";

class Evaluate : public VerbTest<tools::AddEvaluate> {
 protected:
  void SetUp() override {
    VerbTest::SetUp();
    std::ofstream(folder_ + "/text.txt") << kText;
  }
  const std::string model_ = std::filesystem::absolute("tests/golden/models/llama.gguf");
};

TEST_F(Evaluate, LossIsThatOfTheReferenceInAnyLayout) {
  for (const std::vector<std::string>& layout : std::vector<std::vector<std::string>>{
           {}, {"--pp", "2"}, {"--tp", "2"}, {"--rows", "3"}, {"--set", "layout.threads_per_rank=2"}}) {
    std::vector<std::string> words = {model_, "text.txt", "--sequence", "32", "--device", "cpu"};
    words.insert(words.end(), layout.begin(), layout.end());
    EXPECT_THAT(Printed(words),
                AllOf(HasSubstr("253 bytes of 1 document, 89 tokens, windows of 32"),
                      HasSubstr("loss 7.57391 nats a token, perplexity 1946.7, 3.8006 bits per byte")));
  }
}

TEST_F(Evaluate, SaysWhatDoesNotFit) {
  EXPECT_THAT(Refusal({"no-model", "text.txt"}), HasSubstr("no-model"));
  EXPECT_THAT(Refusal({model_, "no-text.txt"}), HasSubstr("no-text.txt"));
  EXPECT_THAT(Refusal({model_, "text.txt", "--sequence", "65"}), HasSubstr("64 positions"));
  const std::string without = std::filesystem::absolute("tests/golden/models/llama");
  EXPECT_THAT(Refusal({without, "text.txt"}), AllOf(HasSubstr("tokenizer.json"), HasSubstr("--tokenizer")));
  EXPECT_THAT(Refusal({without, "text.txt", "--tokenizer", model_}), HasSubstr("700 tokens, the model only 40"));
}

}  // namespace
}  // namespace sluice
