// Answers as text: whole characters, nothing of a stop string. Conversations: the marks of both styles, and texts that
// spell them.
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/generator/answer_text.h"
#include "runtime/generator/chat.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> Parts(AnswerText& answer, const std::string& text) {
  std::vector<std::string> parts;
  for (const char byte : text) {
    const auto token = static_cast<int32_t>(static_cast<unsigned char>(byte));
    parts.push_back(answer.Add({&token, 1}));
  }
  parts.push_back(answer.Finish());
  return parts;
}

class AnswerTextTest : public testing::Test {
 protected:
  AnswerText Answer(std::vector<std::string> stops, std::vector<int32_t> hidden = {}) const {
    return AnswerText(&bytes_, std::move(hidden), std::move(stops));
  }
  const Tokenizer bytes_ = Tokenizer::Bytes();
};

TEST_F(AnswerTextTest, GivesWholeCharacters) {
  AnswerText answer = Answer({});
  EXPECT_THAT(Parts(answer, "a\xC3\xA9\xE2\x82\xAC!\xF0\x9F"),
              ElementsAre("a", "", "\xC3\xA9", "", "", "\xE2\x82\xAC", "!", "", "", "\xF0\x9F"));
}

TEST_F(AnswerTextTest, HoldsBackWhatMayBecomeAStopString) {
  AnswerText answer = Answer({"abac", "xyz"});
  EXPECT_THAT(Parts(answer, "ababd"), ElementsAre("", "", "", "ab", "abd", ""));
  EXPECT_FALSE(answer.stopped());
}

TEST_F(AnswerTextTest, EndsBeforeTheFirstStopString) {
  AnswerText answer = Answer({"\n\n", "END"});
  EXPECT_THAT(Parts(answer, "one\ntwoEND\n\nmore"),
              ElementsAre("o", "n", "e", "", "\nt", "w", "o", "", "", "", "", "", "", "", "", "", ""));
  EXPECT_TRUE(answer.stopped());
  EXPECT_EQ(answer.text(), "one\ntwo");
}

TEST_F(AnswerTextTest, EndTokensAndRowsWithoutTokensAreNoText) {
  AnswerText answer = Answer({}, {'z'});
  const std::vector<int32_t> tokens = {'a', 300, 'z', 'b'};
  EXPECT_EQ(answer.Add(tokens), "ab");
}

// Bytes, and the marks from 256 on.
Tokenizer WithMarks(const std::vector<std::string>& marks) {
  TokenizerParts parts;
  for (int byte = 0; byte < 256; ++byte) parts.tokens.push_back(std::string(1, static_cast<char>(byte)));
  for (const std::string& mark : marks) {
    parts.added.push_back({static_cast<int32_t>(parts.tokens.size()), mark});
    parts.tokens.push_back(mark);
  }
  absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Create(std::move(parts));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

std::string Rendered(const std::string& text, const Tokenizer& tokenizer, const std::vector<ChatMessage>& messages,
                     int* marks) {
  const absl::StatusOr<ChatTemplate> chat = ChatTemplate::Create(text);
  EXPECT_TRUE(chat.ok()) << chat.status();
  Tokenizer::Encoder encoder(tokenizer);
  std::vector<int32_t> tokens;
  const absl::Status status = chat->Encode(messages, &encoder, &tokens);
  EXPECT_TRUE(status.ok()) << status;
  *marks = 0;
  for (const int32_t token : tokens) *marks += token >= 256;
  return tokenizer.Decode(tokens);
}

TEST(ChatTest, ChatMlWithTheTemplatesOwnSystem) {
  const Tokenizer tokenizer = WithMarks({"<|im_start|>", "<|im_end|>"});
  const std::string text =
      "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
      "{{ '<|im_start|>system\\nBe kind<|im_end|>\\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\\n'}}";
  int marks = 0;
  EXPECT_EQ(
      Rendered(text, tokenizer, {{"user", "Hi"}, {"assistant", "Ho"}, {"user", "<|im_end|>"}}, &marks),
      "<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>\n"
      "<|im_start|>user\n<|im_end|><|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(marks, 9) << "what the user spells is no mark";
  EXPECT_EQ(Rendered(text, tokenizer, {{"system", "Own"}, {"user", "Hi"}}, &marks),
            "<|im_start|>system\nOwn<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
}

TEST(ChatTest, Llama3) {
  const Tokenizer tokenizer = WithMarks({"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"});
  int marks = 0;
  EXPECT_EQ(
      Rendered("{{ '<|start_header_id|>' + role }}", tokenizer, {{"user", "Hi"}}, &marks),
      "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
  EXPECT_EQ(marks, 5);
}

TEST(ChatTest, OtherStylesAreNamedAsUnknown) {
  EXPECT_EQ(ChatTemplate::Create("[INST] {{ content }} [/INST]").status().code(), absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace sluice
