// Layers split over the shards of a tensor-parallel group against the same layers in one piece: start values, dropout
// and what is assembled from the shards bit for bit, the rest as near as sums in another order are.
#include "stages/tensor_parallel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "stages/families/gpt2.h"
#include "stages/layer_cost.h"
#include "stages/tensor_traffic.h"
#include "tests/stages/small_models.h"
#include "tests/stages/test_shards.h"

namespace sluice {
namespace {

LayerGraph Llama(int64_t kv_heads, bool tied, float dropout = 0) { return SmallLlama(kv_heads, 28, tied, dropout); }

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
      add("Gpt2", SmallGpt2());
      add("Gpt2WithDropout", SmallGpt2(0.2f));
      add("Llama", Llama(4, false));
      add("LlamaTiedWith2KeyHeads", Llama(2, true));
      add("LlamaWith1KeyHeadAndDropout", Llama(1, false, 0.1f));
      add("Mlp", SmallMlp());
    }
  }
  return cases;
}

TestPipelineOptions Options(const SplitCase& split) {
  return {.stage = {.rows = kRows,
                    .sequence = kSequence,
                    .tensor_parallel = {.size = split.shards, .sequence_parallel = split.sequence_parallel},
                    .seed = kModelSeed},
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

// --- Finite differences ---

class SplitGradients : public ::testing::TestWithParam<SplitCase> {};

// Gradients near 1e-2 come through a dozen f32 operations, each off by some 1e-7 of the largest number it adds.
TEST_P(SplitGradients, AreFiniteDifferencesOfTheReference) {
  const LayerGraph& graph = GetParam().graph;
  TestPipelineOptions options = Options(GetParam());
  options.micro_batches = 1;
  options.cuts = {3};
  TestShards shards(graph, options);
  NamedFloats start = shards.Read(StateKind::kParameter);
  for (auto& [name, values] : start) {
    // Larger than at the start of training, so that no path through the model is negligible.
    for (size_t i = 0; i < values.size(); ++i) values[i] = 5 * values[i] + 0.1f * std::sin(0.7f * i);
  }
  shards.Write(start);
  const std::vector<ReferenceBatch> batches = Batches(1, 0);
  shards.Step(batches, /*update=*/false);
  const ReferenceModel reference(graph, batches[0]);
  ReferenceParameters parameters;
  for (const auto& [name, values] : start) parameters[name] = Doubles(values.begin(), values.end());
  double valid = 0;
  for (const int32_t target : batches[0].targets) valid += target >= 0;
  for (const auto& [name, gradient] : shards.Read(StateKind::kGradient)) {
    for (size_t i = 0; i < gradient.size(); i += gradient.size() / 7 + 1) {
      double& value = parameters[name][i];
      const double kept = value;
      value = kept + 1e-5;
      const double up = reference.Loss(parameters);
      value = kept - 1e-5;
      const double down = reference.Loss(parameters);
      value = kept;
      EXPECT_NEAR(gradient[i], (up - down) / 2e-5 / valid, 1e-4 * Largest(gradient)) << name << "[" << i << "]";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, SplitGradients,
                         ::testing::Values(SplitCase{"Gpt2", SmallGpt2(0.2f), 2},
                                           SplitCase{"Gpt2OfSlices", SmallGpt2(0.2f), 4, true},
                                           SplitCase{"Llama", Llama(2, true), 4},
                                           SplitCase{"LlamaOfSlices", Llama(1, false), 2, true},
                                           SplitCase{"MlpOfSlices", SmallMlp(), 4, true}),
                         [](const auto& info) { return info.param.name; });

// --- Bit-equality ---

struct Outcome {
  std::vector<std::vector<float>> losses;
  std::vector<float> norms;
  NamedFloats parameters, first_moments;
  friend bool operator==(const Outcome&, const Outcome&) = default;
};

Outcome Train(const LayerGraph& graph, const TestPipelineOptions& options) {
  TestShards shards(graph, options);
  Outcome outcome;
  for (int step = 0; step < 3; ++step) {
    const StepResult result = shards.Step(Batches(options.micro_batches, step, kRows, options.stage.sequence));
    outcome.losses.push_back(result.losses);
    outcome.norms.push_back(result.control.norm);
  }
  outcome.parameters = shards.Read(StateKind::kParameter);
  outcome.first_moments = shards.Read(StateKind::kFirstMoment);
  return outcome;
}

class SplitBits : public ::testing::TestWithParam<Precision> {
 protected:
  void ForEachCase(const std::function<void(const LayerGraph&, TestPipelineOptions)>& body) {
    for (const bool sequence_parallel : {false, true}) {
      for (const LayerGraph& graph : {SmallGpt2(0.1f), Llama(2, true, 0.1f)}) {
        TestPipelineOptions options = Options({"", graph, 4, sequence_parallel});
        options.stage.precision = GetParam();
        options.stage.gradient_groups = 2;
        body(graph, options);
      }
    }
  }
};

TEST_P(SplitBits, DontDependOnRunsCutsThreadsOrTheFormOfTheBackwardPass) {
  ForEachCase([](const LayerGraph& graph, TestPipelineOptions options) {
    const Outcome once = Train(graph, options);
    EXPECT_EQ(Train(graph, options), once);
    options.threads = 3;
    options.cuts = {4};
    EXPECT_EQ(Train(graph, options), once);
    options.threads = 1;
    options.cuts = {2, 5, 6};
    options.stage.backward = BackwardForm::kSplit;
    EXPECT_EQ(Train(graph, options), once);
  });
}

TEST_P(SplitBits, SurviveRecomputation) {
  ForEachCase([](const LayerGraph& graph, TestPipelineOptions options) {
    const Outcome kept = Train(graph, options);
    for (const Recomputation recomputation : {Recomputation::kSelective, Recomputation::kFull}) {
      options.stage.recomputation = recomputation;
      options.stage.backward = BackwardForm::kSplit;
      options.cuts = {3};
      EXPECT_EQ(Train(graph, options), kept) << graph.name << " " << static_cast<int>(recomputation);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Precisions, SplitBits, ::testing::Values(Precision::kF32, Precision::kBF16),
                         [](const auto& info) { return info.param == Precision::kF32 ? "F32" : "BF16"; });

// --- Other promises ---

TEST(SplitStage, WorksThroughLongMicroBatchesInChunks) {
  const LayerGraph graph =
      Gpt2Graph({.layers = 1, .channels = 20, .heads = 4, .vocabulary = kVocabulary, .positions = 230}).value();
  for (const bool sequence_parallel : {false, true}) {
    TestPipelineOptions options = Options({"", graph, 4, sequence_parallel});
    options.stage.sequence = 230;
    ASSERT_GT(kRows * options.stage.sequence, kHeadRows);
    TestShards shards(graph, options);
    TestPipeline whole(graph, Unsplit(options));
    const std::vector<ReferenceBatch> batches = Batches(2, 0, kRows, 230);
    const StepResult split = shards.Step(batches), expected = whole.Step(batches);
    for (size_t i = 0; i < 2; ++i) EXPECT_NEAR(split.losses[i], expected.losses[i], 1e-6 * expected.losses[i]);
    ExpectNear(shards.Read(StateKind::kGradient), whole.Read(StateKind::kGradient), 2e-5);
  }
}

// As at the end of an evaluation set: fewer tokens than planned, and fewer than shards.
TEST(SplitStage, TakesSmallerMicroBatchesThanPlanned) {
  for (const bool sequence_parallel : {false, true}) {
    const TestPipelineOptions options = Options({"", SmallGpt2(), 4, sequence_parallel});
    TestShards shards(SmallGpt2(), options);
    TestPipeline whole(SmallGpt2(), Unsplit(options));
    for (const int64_t sequence : {5, 1}) {
      const std::vector<ReferenceBatch> batches = Batches(2, 0, kRows, sequence);
      const std::vector<float> split = shards.Evaluate(batches), expected = whole.Evaluate(batches);
      for (size_t i = 0; i < 2; ++i) EXPECT_NEAR(split[i], expected[i], 1e-6 * expected[i]);
      EXPECT_NEAR(shards.Step(batches, false).losses[0], whole.Step(batches, false).losses[0], 1e-6 * expected[0]);
    }
  }
}

TEST(SplitStage, HoldsItsShareAndAllocatesNothingLater) {
  const LayerGraph graph = Llama(2, true);
  const auto packed = [](const LinearShape& shape) { return 4 * shape.n * shape.k; };
  for (const bool sequence_parallel : {false, true}) {
    const TestPipelineOptions options = Options({"", graph, 4, sequence_parallel});
    StageOptions shard = options.stage;
    const NodeRange all{0, graph.nodes.size()};
    const StageMemory split = PlanStageMemory(graph, all, shard, packed);
    shard.tensor_parallel = {};
    const StageMemory whole = PlanStageMemory(graph, all, shard, packed);
    // Norms stand on every shard, and two shards each hold a key head together.
    EXPECT_LT(split.parameters, whole.parameters / 3);
    EXPECT_LT(split.optimizer, whole.optimizer / 3);
    EXPECT_LT(split.stash_slot, whole.stash_slot * 3 / 4);

    TestShards shards(graph, options);
    const MemoryUse before = shards.shard(1).device()->memory();
    for (int step = 0; step < 2; ++step) shards.Step(Batches(2, step));
    EXPECT_EQ(shards.shard(1).device()->memory().allocations, before.allocations);
  }
}

TEST(SplitStage, SliceOfTheTokensIsWhatLeavesAStage) {
  StageOptions options{.rows = kRows, .sequence = kSequence, .tensor_parallel = {.size = 4, .index = 3}};
  const auto packed = [](const LinearShape&) { return int64_t{0}; };
  EXPECT_EQ(PlanStageMemory(SmallGpt2(), {0, 3}, options, packed).output_message, 33 * 20 * 4);
  options.tensor_parallel.sequence_parallel = true;
  EXPECT_EQ(PlanStageMemory(SmallGpt2(), {0, 3}, options, packed).output_message, 9 * 20 * 4) << "room for the largest";
}

TEST(SplitStage, ExchangesWhatWasForeseen) {
  for (const bool sequence_parallel : {false, true}) {
    for (const LayerGraph& graph : {SmallGpt2(0.1f), Llama(2, true), SmallMlp()}) {
      for (const Recomputation recomputation :
           {Recomputation::kNone, Recomputation::kSelective, Recomputation::kFull}) {
        TestPipelineOptions options = Options({"", graph, 4, sequence_parallel});
        options.stage.recomputation = recomputation;
        TestShards shards(graph, options);
        shards.Step(Batches(2, 0), /*update=*/false);
        TensorParallel tensor = options.stage.tensor_parallel;
        for (tensor.index = 0; tensor.index < 4; ++tensor.index) {
          Traffic expected = TensorStepTraffic(graph, 0, graph.nodes.size(), tensor);
          for (const Node& node : graph.nodes) {
            const LayerTraffic layer = TensorTraffic(node, kRows, kSequence, Precision::kF32, tensor);
            Traffic all = layer.forward + layer.input_gradient + layer.weight_gradient;
            if (recomputation == Recomputation::kSelective) all += layer.recompute_selective;
            if (recomputation == Recomputation::kFull) all += layer.recompute_full;
            expected += all + all;  // two micro-batches
          }
          const Traffic& traffic = shards.traffic(tensor.index);
          EXPECT_EQ(traffic.collectives, expected.collectives) << graph.name;
          // The norm's partials are not foreseen.
          EXPECT_GE(traffic.bytes, expected.bytes) << graph.name;
          EXPECT_LE(traffic.bytes, expected.bytes + 4 * NormPartials(graph, {0, graph.nodes.size()}, tensor));
        }
      }
    }
  }
}

TEST(SplitStage, CostsItsShareOfTheFlops) {
  for (const LayerGraph& graph : {SmallGpt2(), Llama(4, false)}) {
    for (const Node& node : graph.nodes) {
      const LayerCost whole = Cost(node, 2, 64, Precision::kF32);
      const LayerCost split = Cost(node, 2, 64, Precision::kF32, {.size = 4});
      // A vocabulary of 29 rows gives the first shard 8.
      const double share = node.kind == LayerKind::kHead ? 8.0 / 29 : 0.25;
      EXPECT_NEAR(split.forward.flops, share * whole.forward.flops, 1e-6 * whole.forward.flops) << node.name;
      EXPECT_NEAR(split.input_gradient.flops, share * whole.input_gradient.flops, 1e-6 * whole.input_gradient.flops);
      EXPECT_NEAR(split.weight_gradient.flops, share * whole.weight_gradient.flops, 1e-6 * whole.weight_gradient.flops);
    }
  }
}

std::string Refusal(const LayerGraph& graph, int size) {
  return std::string(CheckTensorParallel(graph, {.size = size}).message());
}

TEST(SplitSizes, ThatDoNotDivideAreRefusedWithTheRule) {
  using ::testing::HasSubstr;
  EXPECT_THAT(Refusal(SmallGpt2(), 3),
              HasSubstr("\"h.0.attn\" (attention) can't be split over 3 tensor-parallel shards: its 4 "
                        "heads don't divide evenly"));
  LayerGraph graph = SmallGpt2();
  for (Node& node : graph.nodes) {
    if (node.kind == LayerKind::kAttention) node.heads = node.kv_heads = 6;
  }
  EXPECT_THAT(Refusal(graph, 3), HasSubstr("its width 80 doesn't divide evenly"));
  for (Node& node : graph.nodes) node.width = node.kind == LayerKind::kMlp ? 84 : node.width;
  EXPECT_EQ(Refusal(graph, 3), "");
  for (Node& node : graph.nodes) node.kv_heads = node.kind == LayerKind::kAttention ? 2 : 0;
  EXPECT_THAT(Refusal(graph, 3), HasSubstr("its 2 key/value heads must be a multiple of the shards"));
  EXPECT_THAT(Refusal(SmallMlp(), 30), HasSubstr("its vocabulary of 29 has too few rows"));
  EXPECT_THAT(Refusal(SmallMlp(), 33), HasSubstr("1 to 32"));
}

TEST(SplitParameters, AreAssembledOnlyFromAllParts) {
  const LayerGraph graph = Llama(2, true);
  std::vector<float> complete(24 * 2 * 18);  // (4 + 2 * 2) heads of 6 rows
  for (size_t i = 0; i < complete.size(); ++i) complete[i] = static_cast<float>(i);
  std::vector<ParameterPart> parts;
  for (int index = 0; index < 4; ++index) {
    const ParameterSpec spec = Parameters(graph, 1, {.size = 4, .index = index})[1];
    EXPECT_EQ(spec.rows, 18) << "a query head, and a key and a value head that two shards hold";
    parts.push_back({spec, PartOf(spec, complete)});
  }
  EXPECT_EQ(Assemble(parts).value(), complete);
  parts.pop_back();
  EXPECT_THAT(std::string(Assemble(parts).status().message()), ::testing::HasSubstr("missing"));
  parts.push_back(parts[0]);
  EXPECT_THAT(std::string(Assemble(parts).status().message()), ::testing::HasSubstr("there twice"));
  parts[3].values.pop_back();
  EXPECT_EQ(Assemble(parts).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sluice
