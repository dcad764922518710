// Operations brought together by layer, and the profile that a planner takes.
#include "tools/measure/layers.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tools/measure/run.h"

namespace sluice::tools {
namespace {

constexpr int64_t kMs = 1'000'000;

absl::StatusOr<Plan> SomePlan() {
  constexpr char kJob[] = R"(model { layers: 2 channels: 32 heads: 2 }
data { text: "t" }
training { batch: 4 micro_batches: 2 sequence: 16 }
layout { pp: 2 threads_per_rank: 1 }
)";
  absl::StatusOr<JobConfig> job = ParseJob(kJob, "job");
  if (!job.ok()) return job.status();
  return MakePlan(*job);
}

OperationTime Timed(size_t node, LayerPass pass, int64_t ms) {
  return {.operation = "o", .label = LabelOf({node, pass}), .calls = 1, .time = ms * kMs};
}

TEST(Layers, LabelsComeBack) {
  for (const LayerPass pass : {LayerPass::kForward, LayerPass::kInputGradient, LayerPass::kWeightGradient}) {
    const LayerWork work = WorkOf(LabelOf({.node = 7, .pass = pass}));
    EXPECT_EQ(work.node, 7u);
    EXPECT_EQ(work.pass, pass);
  }
}

TEST(Layers, OperationsAddUpAndStepsGiveTheirMedian) {
  const auto step = [](int64_t ms) {
    return std::vector<OperationTime>{Timed(1, LayerPass::kForward, ms),
                                      Timed(1, LayerPass::kForward, 1),
                                      Timed(2, LayerPass::kWeightGradient, 5),
                                      {.operation = "AdamW", .calls = 1, .time = 8 * kMs}};
  };
  const std::vector<std::vector<OperationTime>> steps = {step(3), step(100), step(2)};
  const StepByLayer layers = ByLayer(steps, 3, 2, {});
  EXPECT_DOUBLE_EQ(layers.nodes[1][0].ms, 8);  // (3 + 1) on two threads
  EXPECT_DOUBLE_EQ(layers.nodes[2][2].ms, 10);
  EXPECT_DOUBLE_EQ(layers.end_of_step.ms, 16);
  EXPECT_DOUBLE_EQ(layers.total_ms(), 34);
}

// Nodes: wte, h.0.attn, h.0.mlp, h.1.attn, h.1.mlp, ln_f, lm_head, loss.
TEST(Layers, LayersThatAreAlikeShareTheirMedianAndTimesAddUpToTheActions) {
  const auto plan = SomePlan();
  ASSERT_TRUE(plan.ok()) << plan.status();
  StepByLayer step{.nodes = std::vector<std::array<PassTime, kLayerPasses>>(plan->job.graph.nodes.size())};
  step.nodes[1][0].ms = step.nodes[3][0].ms = 40;  // of both micro-batches
  step.nodes[2][1].ms = step.nodes[4][1].ms = 60;
  step.end_of_step.ms = 3;
  Costs costs = UniformCosts(
      2, {.forward_ns = 40 * kMs, .input_gradient_ns = 0, .weight_gradient_ns = 0, .backward_ns = 60 * kMs});
  costs.transfer_latency_ns = 123;
  const LayerProfile profile = ProfileOf(*plan, step, costs, "this one");
  EXPECT_EQ(profile.processor, "this one");
  EXPECT_EQ(profile.hand_over_ns, 123);
  // 100 ms of one micro-batch were profiled, and actions take 200.
  for (const size_t attention : {1, 3}) EXPECT_EQ(profile.layers[attention].times.forward_ns, 40 * kMs);
  for (const size_t mlp : {2, 4}) EXPECT_EQ(profile.layers[mlp].times.input_gradient_ns, 60 * kMs);
  int64_t parameters = 0;
  for (const StagePlan& stage : plan->stages) parameters += stage.parameters;
  EXPECT_DOUBLE_EQ(profile.optimizer_ns_per_parameter * static_cast<double>(parameters), 3.0 * kMs);
  EXPECT_TRUE(CheckFits(profile, plan->job).ok());
}

}  // namespace
}  // namespace sluice::tools
