// Layers split over the shards of a tensor-parallel group against the same layers in one piece: start values, dropout
// and what is assembled from the shards bit for bit, the rest as near as sums in another order are.
#include "stages/tensor_parallel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "stages/families/gpt2.h"
#include "stages/families/llama.h"
#include "stages/families/mlp.h"
#include "tests/stages/test_shards.h"

namespace sluice {
namespace {

constexpr int64_t kVocabulary = 29, kSequence = 11, kRows = 3;

// Sizes that are no multiple of any vector's width, a vocabulary and (33) tokens that don't divide.
LayerGraph Gpt2(float dropout = 0) {
  return Gpt2Graph(
             {.layers = 2, .channels = 20, .heads = 4, .vocabulary = kVocabulary, .positions = 16, .dropout = dropout})
      .value();
}
LayerGraph Llama(int64_t kv_heads, bool tied, float dropout = 0) {
  return LlamaGraph({.layers = 2,
                     .channels = 18,
                     .heads = 4,
                     .kv_heads = kv_heads,
                     .head_size = 6,
                     .width = 28,
                     .vocabulary = kVocabulary,
                     .max_sequence = 16,
                     .dropout = dropout,
                     .tied = tied})
      .value();
}
LayerGraph Mlp() {
  return MlpGraph(
             {.layers = 2, .channels = 10, .width = 21, .vocabulary = kVocabulary, .positions = 16, .max_sequence = 16})
      .value();
}

std::vector<ReferenceBatch> Batches(int count, int64_t step, int64_t sequence = kSequence) {
  std::vector<ReferenceBatch> batches;
  uint64_t state = 77 + step;
  for (int b = 0; b < count; ++b) {
    ReferenceBatch batch{.rows = kRows, .sequence = sequence, .seed = 1234, .step = step};
    for (int64_t i = 0; i < kRows * sequence; ++i) {
      state = MixBits(state);
      batch.tokens.push_back(static_cast<int32_t>(state % kVocabulary));
      batch.targets.push_back(state % 7 == 0 ? -1 : static_cast<int32_t>((state >> 20) % kVocabulary));
      batch.positions.push_back(static_cast<int32_t>(i % sequence));
    }
    for (int64_t row = 0; row < kRows; ++row)
      batch.samples.push_back(static_cast<int32_t>((step * count + b) * 3 + row));
    batches.push_back(batch);
  }
  return batches;
}

struct SplitCase {
  std::string name;
  LayerGraph graph;
  int shards;
  bool sequence_parallel = false;
  friend std::ostream& operator<<(std::ostream& out, const SplitCase& c) { return out << c.name; }
};

std::vector<SplitCase> Cases() {
  std::vector<SplitCase> cases;
  for (const bool sequence_parallel : {false, true}) {
    const std::string suffix = sequence_parallel ? "OfSlices" : "";
    for (const int shards : {2, 4}) {
      const auto add = [&](const std::string& name, const LayerGraph& graph) {
        cases.push_back({name + std::to_string(shards) + suffix, graph, shards, sequence_parallel});
      };
      add("Gpt2", Gpt2());
      add("Gpt2WithDropout", Gpt2(0.2f));
      add("Llama", Llama(4, false));
      add("LlamaTiedWith2KeyHeads", Llama(2, true));
      add("LlamaWith1KeyHeadAndDropout", Llama(1, false, 0.1f));
      add("Mlp", Mlp());
    }
  }
  return cases;
}

TestPipelineOptions Options(const SplitCase& split) {
  return {.stage = {.rows = kRows,
                    .sequence = kSequence,
                    .tensor_parallel = {.size = split.shards, .sequence_parallel = split.sequence_parallel},
                    .seed = 1234},
          .micro_batches = 2,
          .max_norm = 0.5f};
}
TestPipelineOptions Unsplit(TestPipelineOptions options) {
  options.stage.tensor_parallel = {};
  return options;
}

double Largest(const std::vector<float>& values) {
  double largest = 1e-6;
  for (const float value : values) largest = std::max(largest, std::abs(double{value}));
  return largest;
}

void ExpectNear(const NamedFloats& values, const NamedFloats& wanted, double tolerance) {
  ASSERT_EQ(values.size(), wanted.size());
  for (const auto& [name, expected] : wanted) {
    const std::vector<float>& got = values.at(name);
    ASSERT_EQ(got.size(), expected.size()) << name;
    const double allowed = tolerance * Largest(expected);
    for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], expected[i], allowed) << name << "[" << i << "]";
  }
}

class Split : public ::testing::TestWithParam<SplitCase> {};

TEST_P(Split, BeginsWithTheNumbersOfTheUnsplitModel) {
  const TestPipelineOptions options = Options(GetParam());
  EXPECT_EQ(TestShards(GetParam().graph, options).Read(StateKind::kParameter),
            TestPipeline(GetParam().graph, Unsplit(options)).Read(StateKind::kParameter));
}

// The same sums in another order: a dozen f32 operations, each off by some 1e-7 of the largest number that it adds.
TEST_P(Split, HasTheLossAndGradientsOfTheUnsplitModel) {
  const TestPipelineOptions options = Options(GetParam());
  TestShards shards(GetParam().graph, options);
  TestPipeline whole(GetParam().graph, Unsplit(options));
  const std::vector<ReferenceBatch> batches = Batches(2, 0);
  const StepResult split = shards.Step(batches), expected = whole.Step(batches);
  for (size_t i = 0; i < 2; ++i) EXPECT_NEAR(split.losses[i], expected.losses[i], 1e-6 * expected.losses[i]);
  EXPECT_NEAR(split.control.norm, expected.control.norm, 2e-6 * expected.control.norm);
  ExpectNear(shards.Read(StateKind::kGradient), whole.Read(StateKind::kGradient), 2e-5);
  const std::vector<float> evaluated = shards.Evaluate(batches), whole_evaluated = whole.Evaluate(batches);
  for (size_t i = 0; i < 2; ++i) EXPECT_NEAR(evaluated[i], whole_evaluated[i], 1e-5 * whole_evaluated[i]);
}

// Differences of 1e-7 grow from step to step, and AdamW divides small gradients by their own size.
TEST_P(Split, TrainsLikeTheUnsplitModelAndIsAssembledIntoOne) {
  const TestPipelineOptions options = Options(GetParam());
  TestShards shards(GetParam().graph, options);
  TestPipeline whole(GetParam().graph, Unsplit(options));
  for (int step = 0; step < 20; ++step) {
    const std::vector<ReferenceBatch> batches = Batches(2, step);
    const StepResult split = shards.Step(batches), expected = whole.Step(batches);
    for (size_t i = 0; i < 2; ++i) ASSERT_NEAR(split.losses[i], expected.losses[i], 1e-4 * expected.losses[i]) << step;
  }
  const std::vector<ReferenceBatch> batches = Batches(2, 20);
  const std::vector<float> evaluated = shards.Evaluate(batches);
  whole.Write(shards.Read(StateKind::kParameter));
  const std::vector<float> assembled = whole.Evaluate(batches);
  for (size_t i = 0; i < 2; ++i) EXPECT_NEAR(assembled[i], evaluated[i], 1e-6 * evaluated[i]);
}

// What is exchanged is rounded to 8 bits more often than in the unsplit model; the first loss is off by a tenth of that
// of bf16 itself, and norms and later losses as those of bf16 runs are.
TEST_P(Split, InBf16StaysNearTheUnsplitModel) {
  TestPipelineOptions options = Options(GetParam());
  options.stage.precision = Precision::kBF16;
  TestShards shards(GetParam().graph, options);
  TestPipeline whole(GetParam().graph, Unsplit(options));
  for (int step = 0; step < 5; ++step) {
    const std::vector<ReferenceBatch> batches = Batches(2, step);
    const StepResult split = shards.Step(batches), expected = whole.Step(batches);
    for (size_t i = 0; i < 2; ++i) EXPECT_NEAR(split.losses[i], expected.losses[i], 0.01 * expected.losses[i]) << step;
    if (step > 0) continue;
    EXPECT_NEAR(split.control.norm, expected.control.norm, 0.02 * expected.control.norm);
  }
}

TEST_P(Split, GivesTheLogitsOfTheUnsplitModel) {
  const TestPipelineOptions options = Options(GetParam());
  const ReferenceBatch batch = Batches(1, 0)[0];
  const std::vector<int32_t> tokens = {kSequence - 1, 17, 30};
  const std::vector<float> split = TestShards(GetParam().graph, options).LogitsOf(batch, tokens);
  const std::vector<float> whole = TestPipeline(GetParam().graph, Unsplit(options)).LogitsOf(batch, tokens);
  ASSERT_EQ(split.size(), whole.size());
  for (size_t i = 0; i < split.size(); ++i) EXPECT_NEAR(split[i], whole[i], 1e-5 * Largest(whole)) << i;
}

INSTANTIATE_TEST_SUITE_P(Models, Split, ::testing::ValuesIn(Cases()), [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace sluice
