// Small models in other programs' formats, and the logits that PyTorch gives them (tests/golden/models/make.py).
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "nlohmann/json.hpp"
#include "runtime/models/model.h"
#include "stages/parameters.h"
#include "tests/stages/test_pipeline.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

constexpr char kFolder[] = "tests/golden/models/";

nlohmann::json Golden(const std::string& file) { return nlohmann::json::parse(std::ifstream(kFolder + file)); }

std::vector<float> ReadAll(const ParameterSource& source, const ParameterSpec& spec) {
  std::vector<float> values(spec.complete_rows * spec.complete_columns);
  const Slice whole{.rows = spec.complete_rows, .columns = spec.complete_columns};
  EXPECT_TRUE(source.Read(StateKind::kParameter, spec.name, whole, absl::MakeSpan(values)).ok()) << spec.name;
  return values;
}

NamedFloats ReadAll(const PretrainedModel& model) {
  NamedFloats all;
  for (size_t node = 0; node < model.graph.nodes.size(); ++node) {
    for (const ParameterSpec& spec : Parameters(model.graph, node)) all[spec.name] = ReadAll(*model.parameters, spec);
  }
  return all;
}

// [tokens, V]. A forward pass gives the logits of as many tokens as it has rows: each row is the same text, and of the
// i-th the i-th token's are taken.
std::vector<float> LogitsOf(const PretrainedModel& model, const std::vector<int32_t>& tokens) {
  const auto length = static_cast<int64_t>(tokens.size());
  TestPipelineOptions options{.cuts = {model.graph.nodes.size() / 2}};
  options.stage = {.purpose = StagePurpose::kInference, .rows = length, .sequence = length};
  TestPipeline pipeline(model.graph, options);
  pipeline.Write(ReadAll(model));
  ReferenceBatch batch{.rows = length, .sequence = length};
  std::vector<int32_t> wanted;
  for (int32_t row = 0; row < length; ++row) {
    batch.tokens.insert(batch.tokens.end(), tokens.begin(), tokens.end());
    batch.samples.push_back(row);
    for (int32_t i = 0; i < length; ++i) batch.positions.push_back(i);
    wanted.push_back(row * static_cast<int32_t>(length) + row);
  }
  return pipeline.LogitsOf(batch, wanted);
}

class Models : public ::testing::TestWithParam<const char*> {
 protected:
  static PretrainedModel Open() {
    auto model = OpenModel(kFolder + std::string(GetParam()));
    EXPECT_TRUE(model.ok()) << model.status();
    return model.ok() ? *std::move(model) : PretrainedModel();
  }
};

// Both sides compute in f32: the largest difference seen was 5e-6 at logits up to 10, from other orders of summation.
TEST_P(Models, GivesTheLogitsOfTheReference) {
  const PretrainedModel model = Open();
  const nlohmann::json golden = Golden("logits.json")[GetParam()];
  const auto tokens = golden["tokens"].get<std::vector<int32_t>>();
  const int64_t every = golden["every"], vocabulary = model.graph.vocabulary;
  const std::vector<float> logits = LogitsOf(model, tokens);
  for (size_t token = 0; token < tokens.size(); ++token) {
    int64_t at = 0;
    for (const double expected : golden["logits"][token]) {
      ASSERT_NEAR(logits[token * vocabulary + at], expected, 5e-5) << "token " << token << ", logit " << at;
      at += every;
    }
    ASSERT_GE(at, vocabulary);
  }
}

TEST_P(Models, AnyBlockOfAParameterIsThatOfTheWhole) {
  const PretrainedModel model = Open();
  EXPECT_TRUE(model.parameters->Check(model.graph).ok()) << model.parameters->Check(model.graph);
  std::mt19937 random(1);
  for (const auto& [name, whole] : ReadAll(model)) {
    const std::vector<size_t> nodes = NodesWith(model.graph, name);
    for (const ParameterSpec& spec : Parameters(model.graph, nodes.front())) {
      if (spec.name != name) continue;
      for (int trial = 0; trial < 20; ++trial) {
        Slice block;
        block.row = random() % spec.rows, block.column = random() % spec.columns;
        block.rows = 1 + random() % (spec.rows - block.row),
        block.columns = 1 + random() % (spec.columns - block.column);
        std::vector<float> values(block.elements());
        ASSERT_TRUE(model.parameters->Read(StateKind::kParameter, name, block, absl::MakeSpan(values)).ok());
        ParameterSpec part = spec;
        part.slices = {block}, part.rows = block.rows, part.columns = block.columns;
        ASSERT_EQ(values, PartOf(part, whole)) << name << " " << block.row << "," << block.column;
      }
    }
  }
}

TEST_P(Models, RefusesBlocksAndStateThatItDoesNotHave) {
  const PretrainedModel model = Open();
  const std::string name = Parameters(model.graph, 0).front().name;
  std::vector<float> one(1);
  const auto read = [&](StateKind kind, const std::string& of, const Slice& block) {
    return model.parameters->Read(kind, of, block, absl::MakeSpan(one)).code();
  };
  EXPECT_EQ(read(StateKind::kFirstMoment, name, {.rows = 1, .columns = 1}), absl::StatusCode::kNotFound);
  EXPECT_EQ(read(StateKind::kParameter, "x", {.rows = 1, .columns = 1}), absl::StatusCode::kNotFound);
  EXPECT_EQ(read(StateKind::kParameter, name, {.row = 1 << 20, .rows = 1, .columns = 1}),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(read(StateKind::kParameter, name, {.column = -1, .rows = 1, .columns = 1}),
            absl::StatusCode::kInvalidArgument);
  LayerGraph other = model.graph;
  other.nodes.erase(other.nodes.begin() + 1);
  EXPECT_FALSE(model.parameters->Check(other).ok());
}

INSTANTIATE_TEST_SUITE_P(All, Models, ::testing::Values("gpt2", "llama", "llama3", "llama.gguf", "gpt2.gguf"),
                         [](const auto& info) {
                           std::string name = info.param;
                           return name.substr(0, name.find('.')) + (name.find('.') == std::string::npos ? "" : "_gguf");
                         });

TEST(Gguf, TokenizerIsTheOneThatTheFileWasMadeWith) {
  const auto model = OpenModel(absl::StrCat(kFolder, "llama.gguf"));
  ASSERT_TRUE(model.ok()) << model.status();
  ASSERT_NE(model->tokenizer, nullptr) << model->no_tokenizer;
  const auto original = Tokenizer::Open("tests/golden/tokenizer/smollm.json");
  ASSERT_TRUE(original.ok());
  ASSERT_EQ(model->tokenizer->vocabulary(), original->vocabulary());
  std::ifstream file("tests/golden/tokenizer/hard_strings.jsonl");
  std::string line;
  std::getline(file, line);  // how to remake it
  while (std::getline(file, line)) {
    const auto row = nlohmann::json::parse(line);
    if (row["tokenizer"] != "smollm") continue;
    std::vector<int32_t> ids;
    const std::string text = row["text"];
    ASSERT_TRUE(Tokenizer::Encoder(*model->tokenizer).Encode(text, AddedTokens::kRecognized, &ids).ok());
    EXPECT_EQ(ids, row["ids"].get<std::vector<int32_t>>()) << text;
  }
  EXPECT_EQ(model->end_tokens, std::vector<int32_t>{0});
  EXPECT_THAT(model->chat_template, HasSubstr("message['content']"));
  EXPECT_EQ(model->context, 64);
}

TEST(HuggingFace, EndTokensAndContextComeFromTheConfiguration) {
  const auto model = OpenModel(absl::StrCat(kFolder, "llama"));
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(model->end_tokens, (std::vector<int32_t>{2, 5}));
  EXPECT_EQ(model->context, 64);
  EXPECT_EQ(model->tokenizer, nullptr);
  EXPECT_THAT(model->no_tokenizer, HasSubstr("tokenizer.json"));
}

// The real model, for who has fetched it: SLUICE_SMOLLM2=FILE.
TEST(SmolLm2, GivesTheTokensAndLogitsOfTheReference) {
  const char* const path = std::getenv("SLUICE_SMOLLM2");
  if (path == nullptr) GTEST_SKIP() << "SLUICE_SMOLLM2 does not name SmolLM2-135M-Instruct.Q4_1.gguf (tools/data)";
  const auto model = OpenModel(path);
  ASSERT_TRUE(model.ok()) << model.status();
  ASSERT_NE(model->tokenizer, nullptr) << model->no_tokenizer;
  double largest = 0;
  const nlohmann::json all = Golden("smollm2.json");
  for (const auto& [prompt, golden] : all.items()) {
    if (prompt == "how") continue;
    std::vector<int32_t> tokens;
    ASSERT_TRUE(Tokenizer::Encoder(*model->tokenizer).Encode(prompt, AddedTokens::kRecognized, &tokens).ok());
    ASSERT_EQ(tokens, golden["tokens"].get<std::vector<int32_t>>()) << prompt;
    const std::vector<float> logits = LogitsOf(*model, tokens);
    const int64_t vocabulary = model->graph.vocabulary, every = golden["every"];
    for (size_t i = 0; i < tokens.size(); ++i) {
      const float* const row = logits.data() + i * vocabulary;
      EXPECT_EQ(std::max_element(row, row + vocabulary) - row, golden["best"][i].get<int64_t>())
          << prompt << " token " << i;
    }
    const float* const last = logits.data() + (tokens.size() - 1) * vocabulary;
    for (size_t i = 0; i < golden["logits"].size(); ++i) {
      largest = std::max(largest, std::abs(golden["logits"][i].get<double>() - last[i * every]));
    }
  }
  // 30 layers in f32, summed in other orders.
  EXPECT_LT(largest, 2e-3);
  std::printf("largest difference of a logit: %.2g\n", largest);
}

}  // namespace
}  // namespace sluice
