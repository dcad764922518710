#include "runtime/tokenizer/tokenizer.h"

#include <fstream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace sluice {
namespace {

constexpr const char* kKinds[] = {"gpt2", "llama3", "smollm"};

std::string GoldenPath(const std::string& name) { return "tests/golden/tokenizer/" + name; }

Tokenizer Golden(const std::string& kind) {
  auto tokenizer = Tokenizer::Open(GoldenPath(kind + ".json"));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

std::string GoldenText(const std::string& kind) {
  std::ifstream file(GoldenPath(kind + ".json"));
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<int32_t> Encode(const Tokenizer& tokenizer, const std::string& text,
                            AddedTokens added = AddedTokens::kRecognized) {
  std::vector<int32_t> ids;
  EXPECT_TRUE(Tokenizer::Encoder(tokenizer).Encode(text, added, &ids).ok());
  return ids;
}

TEST(Tokenizer, MakesOfHardStringsWhatTheReferenceMakes) {
  std::ifstream file(GoldenPath("hard_strings.jsonl"));
  std::string line;
  std::getline(file, line);  // how to remake it
  int cases = 0;
  while (std::getline(file, line)) {
    const auto row = nlohmann::json::parse(line);
    const Tokenizer tokenizer = Golden(row["tokenizer"]);
    const std::string text = row["text"];
    EXPECT_EQ(Encode(tokenizer, text), row["ids"].get<std::vector<int32_t>>()) << row["tokenizer"] << ": " << text;
    ++cases;
  }
  EXPECT_GT(cases, 100);
}

TEST(Tokenizer, IsReadFromWhatIsWrittenOfIt) {
  for (const char* kind : kKinds) {
    const auto parts = ParseTokenizerJson(GoldenText(kind));
    ASSERT_TRUE(parts.ok());
    const auto again = ParseTokenizerJson(FormatTokenizerJson(*parts));
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(*again, *parts) << kind;
  }
}

TEST(Tokenizer, AnyBytesRoundTrip) {
  std::mt19937 random(1);
  for (const char* kind : kKinds) {
    const Tokenizer tokenizer = Golden(kind);
    Tokenizer::Encoder encoder(tokenizer);
    for (int trial = 0; trial < 500; ++trial) {
      std::string text(random() % 200, '\0');
      const int letters = trial % 2 == 0 ? 256 : 4;  // few letters make long merges
      for (char& c : text) c = static_cast<char>(letters == 256 ? random() % 256 : " a\n\xc3"[random() % 4]);
      std::vector<int32_t> ids;
      ASSERT_TRUE(encoder.Encode(text, AddedTokens::kLiteral, &ids).ok());
      ASSERT_EQ(tokenizer.Decode(ids), text) << kind << " trial " << trial;
    }
  }
  const Tokenizer bytes = Tokenizer::Bytes();
  EXPECT_EQ(bytes.vocabulary(), 256);
  EXPECT_EQ(Encode(bytes, "a\xff"), (std::vector<int32_t>{97, 255}));
}

// Joins the pair of lowest rank, the leftmost first, by looking through all of them each time.
std::vector<int32_t> MergeByDefinition(const BytePairs& pairs, const std::string& piece) {
  std::vector<int32_t> symbols;
  for (const char c : piece) symbols.push_back(pairs.TokenOf(static_cast<unsigned char>(c)));
  for (;;) {
    const BytePairs::Merge* best = nullptr;
    size_t place = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const BytePairs::Merge* const merge = pairs.Find(symbols[i], symbols[i + 1]);
      if (merge != nullptr && (best == nullptr || merge->rank < best->rank)) best = merge, place = i;
    }
    if (best == nullptr) return symbols;
    symbols[place] = best->token;
    symbols.erase(symbols.begin() + static_cast<int64_t>(place) + 1);
  }
}

TEST(BytePairs, JoinAsDefinedForRandomMergesAndPieces) {
  std::mt19937 random(2);
  for (int trial = 0; trial < 300; ++trial) {
    std::vector<std::string> tokens;
    for (int byte = 0; byte < 256; ++byte) tokens.push_back(std::string(1, static_cast<char>(byte)));
    std::vector<std::pair<int32_t, int32_t>> merges;
    std::vector<int32_t> usable = {'a', 'b', 'c'};
    for (int i = 0; i < 12; ++i) {
      const int32_t left = usable[random() % usable.size()], right = usable[random() % usable.size()];
      merges.emplace_back(left, right);
      tokens.push_back(tokens[left] + tokens[right]);
      usable.push_back(static_cast<int32_t>(tokens.size()) - 1);
    }
    const auto pairs = BytePairs::Create(tokens, merges, false);
    ASSERT_TRUE(pairs.ok()) << pairs.status();
    BytePairEncoder encoder(*pairs);
    for (int repeat = 0; repeat < 10; ++repeat) {
      std::string piece(1 + random() % 60, '\0');
      for (char& c : piece) c = "abc"[random() % 3];
      std::vector<int32_t> ids;
      encoder.Encode(piece, &ids);
      ASSERT_EQ(ids, MergeByDefinition(*pairs, piece)) << "trial " << trial << ": " << piece;
      ids.clear();
      encoder.Encode(piece, &ids);  // from what is kept of short pieces
      ASSERT_EQ(ids, MergeByDefinition(*pairs, piece));
    }
  }
}

TEST(Tokenizer, AddedTokensOfTextAreTextUnlessAskedFor) {
  const Tokenizer tokenizer = Golden("gpt2");
  ASSERT_TRUE(tokenizer.EndOfText().has_value());
  EXPECT_EQ(tokenizer.EndOfText()->id, 0);
  EXPECT_EQ(Encode(tokenizer, "<|endoftext|>"), (std::vector<int32_t>{0}));
  const std::vector<int32_t> literal = Encode(tokenizer, "<|endoftext|>", AddedTokens::kLiteral);
  EXPECT_GT(literal.size(), 1u);
  EXPECT_EQ(tokenizer.Decode(literal), "<|endoftext|>");
}

TEST(Tokenizer, PrefixIsTheTemplates) {
  EXPECT_EQ(Golden("llama3").prefix(), (std::vector<int32_t>{0}));
  EXPECT_TRUE(Golden("gpt2").prefix().empty());
  EXPECT_TRUE(Golden("llama3").suffix().empty());
}

TEST(Tokenizer, TextCutAtACutEncodesTheSame) {
  std::mt19937 random(3);
  for (const char* kind : kKinds) {
    const Tokenizer tokenizer = Golden(kind);
    int cuts = 0;
    for (int trial = 0; trial < 4000; ++trial) {
      std::string text(10 + random() % 40, '\0');
      for (char& c : text) c = "ab '\n\n.7\r\xc3\xa9"[random() % 11];
      const size_t cut = tokenizer.FindCut(text, random() % text.size());
      if (cut == std::string::npos) continue;
      ++cuts;
      std::vector<int32_t> parts = Encode(tokenizer, text.substr(0, cut));
      const std::vector<int32_t> rest = Encode(tokenizer, text.substr(cut));
      parts.insert(parts.end(), rest.begin(), rest.end());
      ASSERT_EQ(parts, Encode(tokenizer, text)) << kind << ": " << text;
    }
    EXPECT_GT(cuts, 200) << kind;
  }
}

// What is wrong with a tokenizer.json is said by name.
TEST(TokenizerJson, RefusesWhatWouldChangeTokens) {
  using Json = nlohmann::json;
  const Json good = Json::parse(GoldenText("gpt2"));
  const struct {
    const char* path;
    Json value;
    const char* message;
  } cases[] = {
      {"/model/type", "Unigram", "model.type 'Unigram'"},
      {"/model/byte_fallback", true, "byte_fallback"},
      {"/model/end_of_word_suffix", "</w>", "end_of_word_suffix"},
      {"/normalizer", {{"type", "NFC"}}, "normalizer 'NFC'"},
      {"/pre_tokenizer", {{"type", "Digits"}}, "without ByteLevel"},
      {"/pre_tokenizer/type", "Metaspace", "pre_tokenizer 'Metaspace'"},
      {"/added_tokens/0/lstrip", true, "lstrip"},
      {"/added_tokens/0/id", -1, "the id of '<|endoftext|>'"},
      {"/added_tokens/0/id", 1e15, "the id of '<|endoftext|>'"},
      {"/added_tokens/0/content", "", "no content"},
      {"/model/vocab", nullptr, "model.vocab is missing"},
      {"/model/merges/3", "xyzzy", "model.merges[3]"},
      {"/model/merges/3", {"q", "zzzz"}, "'zzzz'"},
      {"/post_processor/type", "BertProcessing", "BertProcessing"},
  };
  for (const auto& c : cases) {
    Json bad = good;
    bad[Json::json_pointer(c.path)] = c.value;
    const auto parts = ParseTokenizerJson(bad.dump());
    ASSERT_FALSE(parts.ok()) << c.path;
    EXPECT_NE(parts.status().message().find(c.message), absl::string_view::npos) << c.path << ": " << parts.status();
  }
}

TEST(TokenizerJson, NoCutOrFlippedByteCrashesIt) {
  const std::string good = GoldenText("smollm");
  std::mt19937 random(4);
  for (int trial = 0; trial < 200; ++trial) {
    std::string bad = good.substr(0, trial % 2 == 0 ? random() % good.size() : good.size());
    if (!bad.empty()) bad[random() % bad.size()] = static_cast<char>(random());
    auto parts = ParseTokenizerJson(bad);
    if (parts.ok()) (void)Tokenizer::Create(*std::move(parts));
  }
}

TEST(Tokenizer, FilesThatArentThereAreNamed) {
  const auto missing = Tokenizer::Open("no/such/tokenizer.json");
  ASSERT_FALSE(missing.ok());
  EXPECT_NE(missing.status().message().find("no/such/tokenizer.json"), absl::string_view::npos);
}

}  // namespace
}  // namespace sluice
