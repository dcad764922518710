// Whole models of LayerStages: gradients, and what must not change a single bit: cuts, split backward passes,
// recomputation, threads.
#include "stages/layer_stage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <new>
#include <string>
#include <vector>

#include "stages/families/gpt2.h"
#include "tests/stages/small_models.h"
#include "tests/stages/test_pipeline.h"

namespace {
thread_local int64_t allocations_of_this_thread = 0;
}  // namespace

void* operator new(size_t bytes) {
  ++allocations_of_this_thread;
  void* memory = std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
// What std::stable_sort asks for.
void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
  ++allocations_of_this_thread;
  return std::malloc(bytes == 0 ? 1 : bytes);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace sluice {
namespace {

LayerGraph Llama(bool tied, float dropout = 0) { return SmallLlama(2, 22, tied, dropout); }

// For micro-batches of several of the head's chunks.
LayerGraph LongGpt2() {
  return Gpt2Graph({.layers = 1, .channels = 20, .heads = 4, .vocabulary = kVocabulary, .positions = 130}).value();
}

StageOptions SmallStage() { return {.rows = kRows, .sequence = kSequence, .seed = kModelSeed}; }

// What a few steps leave behind; compared bit for bit.
struct Outcome {
  std::vector<std::vector<float>> losses;
  std::vector<float> norms;
  NamedFloats parameters, first_moments;
  friend bool operator==(const Outcome&, const Outcome&) = default;
};

Outcome Train(const LayerGraph& graph, TestPipelineOptions options, int steps = 3) {
  options.max_norm = 0.1f;
  TestPipeline pipeline(graph, options);
  Outcome outcome;
  for (int step = 0; step < steps; ++step) {
    const StepResult result =
        pipeline.Step(Batches(options.micro_batches, step, options.stage.rows, options.stage.sequence));
    outcome.losses.push_back(result.losses);
    outcome.norms.push_back(result.control.norm);
    EXPECT_TRUE(std::isfinite(result.control.norm));
    EXPECT_LT(result.control.scale, 1.0f) << "clipping is part of the test";
  }
  outcome.parameters = pipeline.Read(StateKind::kParameter);
  outcome.first_moments = pipeline.Read(StateKind::kFirstMoment);
  return outcome;
}

// --- Gradients of whole models ---

struct ModelCase {
  std::string name;
  LayerGraph graph;
  std::vector<size_t> cuts;
  friend std::ostream& operator<<(std::ostream& out, const ModelCase& c) { return out << c.name; }
};

class WholeModel : public ::testing::TestWithParam<ModelCase> {};

// Gradients near 1e-2 come through a dozen f32 operations, each off by some 1e-7 of the largest number it adds.
TEST_P(WholeModel, GradientsAreFiniteDifferencesOfTheReference) {
  const LayerGraph& graph = GetParam().graph;
  TestPipeline pipeline(graph, {.cuts = GetParam().cuts, .stage = SmallStage()});
  NamedFloats start = pipeline.Read(StateKind::kParameter);
  for (auto& [name, values] : start) {
    // Larger than at the start of training, so that no path through the model is negligible.
    for (size_t i = 0; i < values.size(); ++i) values[i] = 5 * values[i] + 0.1f * std::sin(0.7f * i);
  }
  pipeline.Write(start);
  const std::vector<ReferenceBatch> batches = Batches(1, 0);
  const StepResult result = pipeline.Step(batches, /*update=*/false);
  const ReferenceModel reference(graph, batches[0]);
  ReferenceParameters parameters;
  for (const auto& [name, values] : start) parameters[name] = Doubles(values.begin(), values.end());
  const double loss = reference.Loss(parameters);
  EXPECT_NEAR(result.losses[0], loss, 1e-5 * loss);
  int64_t valid = 0;
  for (int32_t target : batches[0].targets) valid += target >= 0;

  for (const auto& [name, gradient] : pipeline.Read(StateKind::kGradient)) {
    double largest = 1e-3;
    for (float value : gradient) largest = std::max(largest, std::abs(double{value}));
    for (size_t i = 0; i < gradient.size(); i += gradient.size() / 7 + 1) {
      double& value = parameters[name][i];
      const double kept = value;
      value = kept + 1e-5;
      const double up = reference.Loss(parameters);
      value = kept - 1e-5;
      const double down = reference.Loss(parameters);
      value = kept;
      EXPECT_NEAR(gradient[i], (up - down) / 2e-5 / valid, 1e-4 * largest) << name << "[" << i << "]";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, WholeModel,
                         ::testing::Values(ModelCase{"Gpt2Tied", SmallGpt2(), {}},
                                           ModelCase{"Gpt2TiedInTwoStages", SmallGpt2(0.2f), {3}},
                                           ModelCase{"LlamaTied", Llama(true), {}},
                                           ModelCase{"LlamaUntied", Llama(false), {2, 4}},
                                           ModelCase{"Mlp", SmallMlp(), {}}),
                         [](const auto& info) { return info.param.name; });

// --- Bit-equality ---

class Bits : public ::testing::TestWithParam<Precision> {
 protected:
  TestPipelineOptions Options() const {
    TestPipelineOptions options{.stage = SmallStage(), .micro_batches = 4};
    options.stage.precision = GetParam();
    options.stage.gradient_groups = 2;
    return options;
  }
};

TEST_P(Bits, DontDependOnTheCut) {
  for (const LayerGraph& graph : {SmallGpt2(0.1f), Llama(true, 0.1f), Llama(false)}) {
    const Outcome whole = Train(graph, Options());
    const std::vector<std::vector<size_t>> all_cuts = {{1}, {4}, {6}, {2, 5}, {3, 5}, {1, 2, 3, 4, 5, 6}};
    for (const std::vector<size_t>& cuts : all_cuts) {
      TestPipelineOptions options = Options();
      options.cuts = cuts;
      EXPECT_EQ(Train(graph, options), whole) << graph.name << " cut into " << cuts.size() + 1;
    }
  }
}

TEST_P(Bits, OfInputThenWeightGradientAreThoseOfBackward) {
  const LayerGraph graph = SmallGpt2(0.1f);
  const Outcome whole = Train(graph, Options());
  TestPipelineOptions split = Options();
  split.stage.backward = BackwardForm::kSplit;
  EXPECT_EQ(Train(graph, split), whole);
  split.cuts = {2, 5};
  EXPECT_EQ(Train(graph, split), whole);
}

TEST_P(Bits, SurviveRecomputation) {
  for (const LayerGraph& graph : {SmallGpt2(0.1f), Llama(true)}) {
    const Outcome kept = Train(graph, Options());
    for (Recomputation recomputation : {Recomputation::kSelective, Recomputation::kFull}) {
      for (BackwardForm backward : {BackwardForm::kWhole, BackwardForm::kSplit}) {
        TestPipelineOptions options = Options();
        options.stage.recomputation = recomputation;
        options.stage.backward = backward;
        options.cuts = {4};
        EXPECT_EQ(Train(graph, options), kept) << graph.name << " " << static_cast<int>(recomputation);
      }
    }
  }
}

TEST_P(Bits, DontDependOnThreads) {
  const LayerGraph graph = SmallGpt2(0.1f);
  const Outcome one = Train(graph, Options());
  for (int threads : {2, 3}) {
    TestPipelineOptions options = Options();
    options.threads = threads;
    EXPECT_EQ(Train(graph, options), one) << threads;
  }
}

INSTANTIATE_TEST_SUITE_P(Precisions, Bits, ::testing::Values(Precision::kF32, Precision::kBF16),
                         [](const auto& info) { return info.param == Precision::kF32 ? "F32" : "BF16"; });

// --- Other promises ---

// bf16 has 8 bits: a product is off by up to 2^-9, a sum of many by less. Losses agree to a percent; norms of the same
// weights to a few, and later ones are those of other weights.
TEST(LayerStage, Bf16StaysNearF32) {
  for (const LayerGraph& graph : {SmallGpt2(), Llama(true)}) {
    TestPipelineOptions options{.stage = SmallStage(), .micro_batches = 2};
    const Outcome f32 = Train(graph, options, 5);
    options.stage.precision = Precision::kBF16;
    const Outcome bf16 = Train(graph, options, 5);
    for (size_t step = 0; step < 5; ++step) {
      EXPECT_NEAR(bf16.losses[step][0], f32.losses[step][0], 0.01 * f32.losses[step][0]);
    }
    EXPECT_NEAR(bf16.norms[0], f32.norms[0], 0.03 * f32.norms[0]);
  }
}

TEST(LayerStage, TrainingLowersTheLoss) {
  for (const LayerGraph& graph : {SmallGpt2(), Llama(false), SmallMlp()}) {
    TestPipeline pipeline(graph, {.cuts = {2}, .stage = SmallStage(), .micro_batches = 2, .max_norm = 1});
    const std::vector<ReferenceBatch> batches = Batches(2, 0);
    const float first = pipeline.Step(batches).losses[0];
    float last = 0;
    for (int step = 0; step < 30; ++step) last = pipeline.Step(batches).losses[0];
    EXPECT_LT(last, 0.7f * first) << graph.name;
  }
}

// Another rank had no memory, or the run was interrupted: what the stream still works on must not be freed under it.
TEST(LayerStage, MayBeGivenUpWhileItsWorkIsPending) {
  const std::vector<ReferenceBatch> batches = Batches(4, 0);
  for (int i = 0; i < 10; ++i) {
    TestPipeline pipeline(SmallGpt2(), {.cuts = {2}, .stage = SmallStage(), .micro_batches = 4});
    if (i % 2 == 0) pipeline.IssuePasses(batches);
  }
}

// Weights and gradients of a step are sums of the same numbers however they are grouped, in another order.
TEST(LayerStage, GradientGroupsChangeOnlyTheOrderOfSums) {
  TestPipelineOptions options{.stage = SmallStage(), .micro_batches = 4};
  const Outcome one = Train(SmallGpt2(), options, 1);
  options.stage.gradient_groups = 4;
  const Outcome four = Train(SmallGpt2(), options, 1);
  EXPECT_EQ(four.losses, one.losses);
  EXPECT_NEAR(four.norms[0], one.norms[0], 1e-6 * one.norms[0]);
  options.cuts = {3};
  EXPECT_EQ(Train(SmallGpt2(), options, 1), four);
}

TEST(LayerStage, EvaluationDropsNothing) {
  TestPipelineOptions options{.cuts = {4}, .stage = SmallStage(), .micro_batches = 2};
  TestPipeline dropping(SmallGpt2(0.3f), options), keeping(SmallGpt2(0), options);
  const std::vector<ReferenceBatch> batches = Batches(2, 0);
  EXPECT_NE(dropping.Step(batches, false).losses, keeping.Step(batches, false).losses);
  EXPECT_EQ(dropping.Evaluate(batches), keeping.Evaluate(batches));
}

// A product's sum of twenty terms near 1 is off by some 1e-7 of the largest.
TEST(LayerStage, GivesTheLogitsOfTheTokensThatAreWantedAndNoOthers) {
  const LayerGraph graph = SmallGpt2(0.3f);
  TestPipeline pipeline(graph, {.cuts = {4}, .stage = SmallStage()});
  const ReferenceBatch batch = Batches(1, 0)[0];
  ReferenceParameters parameters;
  for (const auto& [name, values] : pipeline.Read(StateKind::kParameter)) {
    parameters[name] = Doubles(values.begin(), values.end());
  }
  LayerGraph keeping = graph;  // in evaluation nothing is dropped
  for (Node& node : keeping.nodes) node.dropout = 0;
  const Doubles all = ReferenceModel(keeping, batch).Logits(parameters);
  const std::vector<int32_t> last_of_rows = {kSequence - 1, 2 * kSequence - 1, 3 * kSequence - 1};
  for (const std::vector<int32_t>& tokens : {last_of_rows, {17}, {0, 30}}) {
    const std::vector<float> logits = pipeline.LogitsOf(batch, tokens);
    ASSERT_EQ(logits.size(), tokens.size() * kVocabulary);
    for (size_t i = 0; i < logits.size(); ++i) {
      EXPECT_NEAR(logits[i], all[tokens[i / kVocabulary] * kVocabulary + i % kVocabulary], 1e-6) << i;
    }
  }
  pipeline.Evaluate({batch});
  EXPECT_FALSE(pipeline.stage(1)->logits()) << "wanted of an earlier pass";
}

// --- Micro-batches of more than one of the head's chunks ---

TEST_P(Bits, OfLongMicroBatchesDontDependOnCutSplitOrThreads) {
  TestPipelineOptions options = Options();
  options.stage.rows = 5;
  options.stage.sequence = 130;
  ASSERT_GT(options.stage.rows * options.stage.sequence, kHeadRows);
  const LayerGraph graph = LongGpt2();
  const auto train = [&](const TestPipelineOptions& with) { return Train(graph, with, 2); };
  const Outcome whole = train(options);
  options.cuts = {graph.nodes.size() - 1};
  EXPECT_EQ(train(options), whole);
  options.stage.backward = BackwardForm::kSplit;
  options.threads = 2;
  EXPECT_EQ(train(options), whole);
}

TEST(LayerStage, EvaluationGivesTheBitsOfTheLossInTraining) {
  for (const Precision precision : {Precision::kF32, Precision::kBF16}) {
    TestPipelineOptions options{.stage = SmallStage(), .micro_batches = 2};
    options.stage.precision = precision;
    options.stage.rows = 5;
    options.stage.sequence = 130;
    TestPipeline pipeline(LongGpt2(), options);
    const std::vector<ReferenceBatch> batches = Batches(2, 0, 5, 130);
    EXPECT_EQ(pipeline.Step(batches, /*update=*/false).losses, pipeline.Evaluate(batches));
  }
}

TEST(LayerStage, AStageForInferenceGivesTheLossesOfTraining) {
  const LayerGraph graph = Llama(true);
  TestPipelineOptions options{.stage = SmallStage(), .micro_batches = 2};
  const std::vector<ReferenceBatch> batches = Batches(2, 0);
  const std::vector<float> losses = TestPipeline(graph, options).Step(batches, false).losses;
  options.stage.purpose = StagePurpose::kInference;
  TestPipeline inference(graph, options);
  EXPECT_EQ(inference.Evaluate(batches), losses);
  std::vector<float> moments(kVocabulary * 18);
  EXPECT_EQ(inference.stage(0)
                ->Read(StateKind::kFirstMoment, "model.embed_tokens.weight", absl::MakeSpan(moments))
                .status()
                .code(),
            absl::StatusCode::kNotFound);
}

TEST(LayerStage, TakesSmallerMicroBatchesThanPlanned) {
  TestPipelineOptions exact{.cuts = {3}, .stage = SmallStage(), .micro_batches = 2};
  exact.stage.rows = 2;
  exact.stage.sequence = 5;
  TestPipelineOptions roomy = exact;
  roomy.stage.rows = 7;
  roomy.stage.sequence = 16;
  TestPipeline a(SmallGpt2(0.1f), exact), b(SmallGpt2(0.1f), roomy);
  for (int step = 0; step < 2; ++step) {
    const std::vector<ReferenceBatch> batches = Batches(2, step, 2, 5);
    EXPECT_EQ(a.Step(batches).losses, b.Step(batches).losses);
  }
  EXPECT_EQ(a.Read(StateKind::kParameter), b.Read(StateKind::kParameter));
}

TEST(LayerStage, MemoryIsWhatWasPlannedAndNothingIsAllocatedLater) {
  const LayerGraph graph = SmallGpt2(0.1f);
  for (BackwardForm backward : {BackwardForm::kWhole, BackwardForm::kSplit}) {
    TestPipelineOptions options{.stage = SmallStage(), .micro_batches = 3};
    options.stage.backward = backward;
    TestPipeline pipeline(graph, options);
    const Operations& operations = pipeline.device()->operations();
    const StageMemory planned = PlanStageMemory(
        graph, {0, graph.nodes.size()},
        [&] {
          StageOptions stage = options.stage;
          stage.micro_batches = 3;
          return stage;
        }(),
        [&](const LinearShape& shape) { return operations.PackedLinearBytes(shape); });
    EXPECT_EQ(planned, pipeline.stage(0)->memory());
    const int64_t partials = NormPartials(graph, {0, graph.nodes.size()});
    const int64_t norm = RankModel::Bytes(partials, partials);
    const MemoryUse before = pipeline.device()->memory();
    EXPECT_EQ(before.bytes, planned.ArenaBytes(3, backward == BackwardForm::kSplit ? 3 : 1) + norm);
    pipeline.Step(Batches(3, 0));
    pipeline.Step(Batches(3, 1));
    EXPECT_EQ(pipeline.device()->memory().allocations, before.allocations);
  }
}

TEST(LayerStage, IssuingAnActionAllocatesNothing) {
  for (Recomputation recomputation : {Recomputation::kNone, Recomputation::kFull}) {
    TestPipelineOptions options{.cuts = {3}, .stage = SmallStage(), .micro_batches = 2};
    options.stage.recomputation = recomputation;
    TestPipeline pipeline(SmallGpt2(0.1f), options);
    const std::vector<ReferenceBatch> batches = Batches(2, 0);
    for (int warm_up = 0; warm_up < 3; ++warm_up) pipeline.Step(batches);
    const int64_t before = allocations_of_this_thread;
    pipeline.IssuePasses(batches);
    EXPECT_EQ(allocations_of_this_thread - before, 0);
    pipeline.Step(batches);
  }
}

TEST(LayerStage, ANonFiniteGradientLeavesEverythingAsItIs) {
  TestPipeline pipeline(SmallGpt2(), {.cuts = {3}, .stage = SmallStage(), .max_norm = 1});
  pipeline.Step(Batches(1, 0));
  NamedFloats parameters = pipeline.Read(StateKind::kParameter);
  parameters["ln_f.weight"][3] = std::numeric_limits<float>::infinity();
  pipeline.Write(parameters);
  const NamedFloats moments = pipeline.Read(StateKind::kSecondMoment);
  EXPECT_EQ(pipeline.Step(Batches(1, 1)).control.skip, 1.0f);
  EXPECT_EQ(pipeline.Read(StateKind::kParameter), parameters);
  EXPECT_EQ(pipeline.Read(StateKind::kSecondMoment), moments);
}

TEST(LayerStage, ParametersBeginAsTheirSpecSays) {
  TestPipeline pipeline(SmallGpt2(), {.stage = SmallStage()});
  const NamedFloats start = pipeline.Read(StateKind::kParameter);
  for (const ParameterSpec& spec : pipeline.stage(0)->parameters()) {
    double square = 0;
    for (float value : start.at(spec.name)) square += value * value;
    const double deviation = std::sqrt(square / spec.elements());
    switch (spec.init) {
      // The deviation of n draws is itself off by about 1 in sqrt(2n); 4 of those.
      case ParameterSpec::Init::kNormal:
        EXPECT_NEAR(deviation / spec.deviation, 1, 4 / std::sqrt(2.0 * spec.elements())) << spec.name;
        break;
      case ParameterSpec::Init::kOne:
        EXPECT_EQ(deviation, 1) << spec.name;
        break;
      case ParameterSpec::Init::kZero:
        EXPECT_EQ(deviation, 0) << spec.name;
        break;
    }
  }
}

TEST(LayerStage, ReadAndWriteNameWhatDoesNotFit) {
  TestPipeline pipeline(SmallGpt2(), {.stage = SmallStage()});
  std::vector<float> values(7);
  LayerStage* stage = pipeline.stage(0);
  EXPECT_EQ(stage->Read(StateKind::kParameter, "h.9.attn", absl::MakeSpan(values)).status().code(),
            absl::StatusCode::kNotFound);
  const absl::Status wrong = stage->Write(StateKind::kParameter, "ln_f.bias", values).status();
  EXPECT_EQ(wrong.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(wrong.message()), ::testing::HasSubstr("\"ln_f.bias\" has 20 elements, not 7"));
}

}  // namespace
}  // namespace sluice
