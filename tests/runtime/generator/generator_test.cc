// What is generated through a pipeline with caches against one full forward pass a token: the same tokens for any
// number of stages, threads and groups, and however prompts are cut into micro-batches.
#include "runtime/generator/generator.h"

#include <algorithm>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/world.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/stages/small_models.h"
#include "tests/stages/test_pipeline.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;
using Answers = std::vector<std::vector<int32_t>>;

constexpr int64_t kContext = 16;

LayerGraph Llama() {
  LayerGraph graph = SmallLlama(2, 40, true);
  for (Node& node : graph.nodes) node.init_deviation = node.projection_deviation = 0.5f;  // so that answers differ
  return graph;
}
LayerGraph Gpt2() {
  LayerGraph graph = SmallGpt2();
  for (Node& node : graph.nodes) node.init_deviation = node.projection_deviation = 0.5f;
  return graph;
}

// Of several lengths; the answers are as long as there is room for.
std::vector<GenerationRequest> Requests(size_t count, SamplingRules rules = {}) {
  std::vector<GenerationRequest> requests;
  for (size_t i = 0; i < count; ++i) {
    GenerationRequest& request = requests.emplace_back();
    for (size_t k = 0; k < 1 + (i * 5) % 9; ++k) {
      request.prompt.push_back(static_cast<int32_t>(MixBits(100 * i + k) % kVocabulary));
    }
    request.tokens_max = kContext - static_cast<int64_t>(request.prompt.size()) - static_cast<int64_t>(i % 2);
    request.rules = rules;
    request.rules.sample = static_cast<int64_t>(i);
  }
  return requests;
}

// Greedy, by a full forward pass for each token, without pipeline and caches.
Answers Reference(const LayerGraph& graph, const std::vector<GenerationRequest>& requests) {
  TestPipeline pipeline(graph, {.stage = {.rows = 1, .sequence = kContext, .seed = kModelSeed}});
  Answers answers;
  for (const GenerationRequest& request : requests) {
    std::vector<int32_t> tokens = request.prompt;
    for (int64_t i = 0; i < request.tokens_max; ++i) {
      ReferenceBatch batch{.rows = 1, .sequence = static_cast<int64_t>(tokens.size()), .tokens = tokens};
      batch.targets.assign(tokens.size(), -1);
      for (size_t t = 0; t < tokens.size(); ++t) batch.positions.push_back(static_cast<int32_t>(t));
      batch.samples = {0};
      const std::vector<float> logits = pipeline.LogitsOf(batch, {static_cast<int32_t>(tokens.size()) - 1});
      tokens.push_back(static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    }
    answers.emplace_back(tokens.begin() + request.prompt.size(), tokens.end());
  }
  return answers;
}

GenerationSettings SettingsFor(LayerGraph graph, int pp) {
  GenerationSettings settings{.graph = std::move(graph), .context = kContext, .seed = kModelSeed};
  settings.layout.pp = pp;
  return settings;
}

std::unique_ptr<TokenGenerator> Make(World* world, const GenerationSettings& settings, int threads = 1) {
  absl::StatusOr<Plan> plan = MakeGenerationPlan(settings);
  EXPECT_TRUE(plan.ok()) << plan.status();
  auto generator = TokenGenerator::Create(world, *std::move(plan), {.threads_per_rank = threads}, nullptr);
  EXPECT_TRUE(generator.ok()) << generator.status();
  return *std::move(generator);
}

Answers Generate(TokenGenerator& generator, const std::vector<GenerationRequest>& requests) {
  Answers answers(requests.size());
  const absl::Status status = generator.Generate(requests, [&](size_t request, absl::Span<const int32_t> tokens) {
    answers[request].insert(answers[request].end(), tokens.begin(), tokens.end());
    return true;
  });
  EXPECT_TRUE(status.ok()) << status;
  return answers;
}

class GeneratorTest : public testing::Test {
 protected:
  Answers Run(const GenerationSettings& settings, const std::vector<GenerationRequest>& requests, int threads = 1) {
    return Generate(*Make(world_.get(), settings, threads), requests);
  }
  const std::unique_ptr<World> world_ = NewRealWorld();
};

TEST_F(GeneratorTest, GreedyEqualsOneFullForwardPassAToken) {
  for (const LayerGraph& graph : {Llama(), Gpt2()}) {
    const std::vector<GenerationRequest> requests = Requests(5);
    const Answers expected = Reference(graph, requests);
    EXPECT_NE(expected[0], expected[1]);
    for (const int pp : {1, 2, 3}) {
      for (const int groups : {1, 2, 4}) {
        GenerationSettings settings = SettingsFor(graph, pp);
        settings.groups = groups;
        settings.group_sequences = 2;
        settings.prefill_tokens = 2 + 3 * pp;
        settings.rounds = 1 + groups;
        EXPECT_EQ(Run(settings, requests, 1 + pp % 2), expected) << graph.name << " pp " << pp << " groups " << groups;
      }
    }
  }
}

TEST_F(GeneratorTest, ShardsGiveTheSameTokens) {
  const std::vector<GenerationRequest> requests = Requests(3);
  const Answers expected = Reference(Llama(), requests);
  for (const int pp : {1, 2}) {
    GenerationSettings settings = SettingsFor(Llama(), pp);
    settings.layout.tp = 2;
    settings.groups = 2;
    settings.group_sequences = 2;
    EXPECT_EQ(Run(settings, requests), expected) << pp;  // no two of the logits here are closer than the tolerance
  }
}

TEST_F(GeneratorTest, DrawnTokensDependOnTheRequestAlone) {
  const std::vector<GenerationRequest> requests =
      Requests(6, {.temperature = 1.5f, .top_p = 0.9f, .repetition_penalty = 1.2f, .top_k = 12, .seed = 3});
  const Answers expected = Run(SettingsFor(Llama(), 1), requests);
  GenerationSettings settings = SettingsFor(Llama(), 2);
  settings.groups = 3;
  settings.group_sequences = 2;
  settings.prefill_tokens = 4;
  EXPECT_EQ(Run(settings, requests, 2), expected);
  EXPECT_NE(Run(settings, Requests(6, {.temperature = 1.5f, .seed = 4})), expected);
}

TEST_F(GeneratorTest, OneGeneratorServesOneCallAfterAnother) {
  GenerationSettings settings = SettingsFor(Llama(), 2);
  settings.group_sequences = 3;
  const auto generator = Make(world_.get(), settings);
  const std::vector<GenerationRequest> requests = Requests(4, {.repetition_penalty = 1.5f});
  const Answers first = Generate(*generator, requests);
  const int64_t allocations = generator->pipeline().memory()[0].allocations;
  EXPECT_EQ(Generate(*generator, requests), first);
  EXPECT_EQ(generator->pipeline().memory()[0].allocations, allocations);
}

TEST_F(GeneratorTest, EndsAtEndTokensAndWhereTheCallerHasEnough) {
  std::vector<GenerationRequest> requests = Requests(2);
  const Answers whole = Run(SettingsFor(Llama(), 1), requests);
  requests[0].end_tokens = {whole[0][3], kVocabulary - 1};
  const size_t at = std::find(whole[0].begin(), whole[0].end(), whole[0][3]) - whole[0].begin();
  GenerationSettings settings = SettingsFor(Llama(), 2);
  settings.rounds = 3;
  const auto generator = Make(world_.get(), settings);
  Answers answers(2);
  const absl::Status status = generator->Generate(requests, [&](size_t request, absl::Span<const int32_t> tokens) {
    answers[request].insert(answers[request].end(), tokens.begin(), tokens.end());
    return request == 0 || answers[1].size() < 4;
  });
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(answers[0], std::vector<int32_t>(whole[0].begin(), whole[0].begin() + at + 1));
  EXPECT_EQ(answers[1], std::vector<int32_t>(whole[1].begin(), whole[1].begin() + 4));  // one, and three rounds
}

TEST_F(GeneratorTest, RefusesWhatDoesntFit) {
  const auto generator = Make(world_.get(), SettingsFor(Gpt2(), 1));
  const auto error_of = [&](GenerationRequest request) {
    const absl::Status status =
        generator->Generate({&request, 1}, [](size_t, absl::Span<const int32_t>) { return true; });
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_EQ(error_of({.prompt = std::vector<int32_t>(13, 1), .tokens_max = 4}),
            "prompt 1 has 13 tokens, and 4 more are wanted: the context has 16");
  EXPECT_THAT(error_of({.prompt = {1, kVocabulary}, .tokens_max = 1}), HasSubstr("has token 29"));
  EXPECT_THAT(error_of({.tokens_max = 1}), HasSubstr("has no token"));

  GenerationSettings settings = SettingsFor(Gpt2(), 1);
  settings.context = 17;
  EXPECT_THAT(std::string(MakeGenerationPlan(settings).status().message()), HasSubstr("has at most 16"));
  settings = SettingsFor(Gpt2(), 1);
  settings.layout.memory_limit = {10'000};
  EXPECT_EQ(MakeGenerationPlan(settings).status().code(), absl::StatusCode::kResourceExhausted);
  settings = SettingsFor(Gpt2(), 1);
  settings.layout.device = DeviceKind::kCuda;
  EXPECT_EQ(MakeGenerationPlan(settings).status().code(), absl::StatusCode::kUnimplemented);
}

TEST_F(GeneratorTest, MemoryIsWhatWasPlanned) {
  GenerationSettings settings = SettingsFor(Llama(), 2);
  settings.groups = 2;
  settings.group_sequences = 3;
  const auto generator = Make(world_.get(), settings);
  Generate(*generator, Requests(7));
  for (const RankMemory& memory : generator->pipeline().memory()) EXPECT_EQ(memory.peak_bytes, memory.planned_bytes);
}

}  // namespace
}  // namespace sluice
