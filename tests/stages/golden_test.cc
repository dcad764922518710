// The first ten steps of a small gpt2 and a small llama against an independent implementation
// (tests/golden/model_losses.py, float64 NumPy): two micro-batches a step, AdamW, clipping, ignored targets.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "stages/families/gpt2.h"
#include "stages/families/llama.h"
#include "tests/stages/test_pipeline.h"

namespace sluice {
namespace {

constexpr int64_t kVocabulary = 61, kSequence = 16, kRows = 2;
constexpr int kMicroBatches = 2;

struct GoldenStep {
  double loss = 0;
  double norm = 0;
};

std::vector<GoldenStep> ReadGolden(const std::string& model) {
  std::ifstream file("tests/golden/model_losses.txt");
  std::vector<GoldenStep> steps;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string name;
    size_t step = 0;
    GoldenStep golden;
    if (words >> name >> step >> golden.loss >> golden.norm && name == model) steps.push_back(golden);
  }
  return steps;
}

// fill() of the script.
NamedFloats Fill(LayerStage* stage) {
  NamedFloats all;
  int index = 0;
  for (const ParameterSpec& spec : stage->parameters()) {
    std::vector<float>& values = all[spec.name];
    for (int64_t i = 0; i < spec.elements(); ++i) {
      const double wave = std::sin(0.37 * static_cast<double>(i) + 1.3 * index);
      const bool gain = spec.init == ParameterSpec::Init::kOne;
      values.push_back(static_cast<float>(spec.rows > 1 ? 0.15 * wave : gain ? 1 + 0.05 * wave : 0.02 * wave));
    }
    ++index;
  }
  return all;
}

// batch() of the script.
ReferenceBatch Batch(int step, int micro_batch) {
  ReferenceBatch batch{.rows = kRows, .sequence = kSequence, .samples = {0, 1}, .step = step};
  const auto text = [&](int64_t place) {
    const int64_t i = place + 101 * micro_batch + 211 * step;
    return static_cast<int32_t>((i * i * 7 + i * 3) % kVocabulary);
  };
  for (int64_t i = 0; i < kRows * kSequence; ++i) {
    batch.tokens.push_back(text(i));
    batch.targets.push_back(i % 7 == 0 ? -1 : text(i + 1));
    batch.positions.push_back(static_cast<int32_t>(i % kSequence));
  }
  return batch;
}

// f32 against f64: the largest differences seen were 1.1e-6 in a loss and 3e-5 in a norm; the bounds leave room for
// other orders of summation on other processors.
void ExpectGolden(const std::string& name, const LayerGraph& graph, const std::vector<size_t>& cuts) {
  TestPipelineOptions options{.cuts = cuts, .micro_batches = kMicroBatches, .max_norm = 1, .learning_rate = 3e-3f};
  options.stage = {.rows = kRows, .sequence = kSequence, .adam = {.weight_decay = 0.1f}};
  TestPipeline pipeline(graph, options);
  TestPipelineOptions whole = options;
  whole.cuts = {};
  pipeline.Write(Fill(TestPipeline(graph, whole).stage(0)));
  const std::vector<GoldenStep> golden = ReadGolden(name);
  ASSERT_EQ(golden.size(), 10u);
  for (int step = 0; step < 10; ++step) {
    const std::vector<ReferenceBatch> batches = {Batch(step, 0), Batch(step, 1)};
    int64_t valid = 0;
    for (const ReferenceBatch& batch : batches) {
      for (int32_t target : batch.targets) valid += target >= 0;
    }
    const StepResult result = pipeline.Step(batches);
    const double loss = (double{result.losses[0]} + result.losses[1]) / static_cast<double>(valid);
    EXPECT_NEAR(loss, golden[step].loss, 1e-5) << name << " step " << step;
    EXPECT_NEAR(result.control.norm, golden[step].norm, 1e-4) << name << " step " << step;
  }
}

TEST(Golden, Gpt2TakesTheStepsOfTheIndependentImplementation) {
  const LayerGraph graph =
      Gpt2Graph({.layers = 2, .channels = 32, .heads = 4, .vocabulary = kVocabulary, .positions = kSequence}).value();
  ExpectGolden("gpt2", graph, {});
  ExpectGolden("gpt2", graph, {2, 4});
}

TEST(Golden, LlamaTakesTheStepsOfTheIndependentImplementation) {
  const LayerGraph graph = LlamaGraph({.layers = 2,
                                       .channels = 32,
                                       .heads = 4,
                                       .kv_heads = 2,
                                       .width = 48,
                                       .vocabulary = kVocabulary,
                                       .max_sequence = kSequence})
                               .value();
  ExpectGolden("llama", graph, {});
  ExpectGolden("llama", graph, {3});
}

}  // namespace
}  // namespace sluice
