// The trainer's plain functions: where a step's time went, costs for the simulation, progress lines, sampling.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/trainer/breakdown.h"
#include "runtime/trainer/outcome.h"
#include "runtime/trainer/progress.h"
#include "runtime/trainer/run_facts.h"
#include "runtime/trainer/sampling.h"
#include "scheduler/generators.h"
#include "scheduler/lowering.h"
#include "scheduler/simulate.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

Program OneFOneB(int ranks, int micro_batches) {
  return *Lower(*Generate("1f1b", {.ranks = ranks, .micro_batches = micro_batches}));
}

Costs SomeCosts(int stages) {
  Costs costs = UniformCosts(stages, {.forward_ns = 1000, .backward_ns = 2100, .optimizer_ns = 500});
  for (int stage = 0; stage < stages; ++stage) costs.stages[stage].forward_ns += 10 * stage;
  costs.transfer_latency_ns = 70;
  costs.collective_ns = 30;
  return costs;
}

TEST(Breakdown, PartsAddUpToTheStep) {
  const Program program = OneFOneB(3, 5);
  const auto timeline = Simulate(program, SomeCosts(3));
  ASSERT_TRUE(timeline.ok()) << timeline.status();
  const TimelineMetrics metrics = Measure(*timeline);
  const auto ranks = BreakDown(*timeline);
  ASSERT_EQ(ranks.size(), 3u);
  for (size_t rank = 0; rank < 3; ++rank) {
    const RankBreakdown& part = ranks[rank];
    EXPECT_EQ(part.step_ns, metrics.step_ns);
    EXPECT_EQ(part.compute_ns, 5 * (3100 + 10 * static_cast<int64_t>(rank)));
    EXPECT_EQ(part.compute_ns + part.optimizer_ns + part.transfer_ns + part.waiting_ns, part.step_ns);
    EXPECT_GE(part.optimizer_ns, 500);
    EXPECT_GT(part.transfer_ns, 0);
    EXPECT_GE(part.waiting_ns, 0);
  }
}

// What was simulated with some costs is measured as those costs, so that predicted and measured mean the same.
TEST(MeasuredCosts, GiveBackTheCostsOfASimulatedStep) {
  const Program program = OneFOneB(3, 6);
  const Costs costs = SomeCosts(3);
  const std::vector<Timeline> steps{*Simulate(program, costs)};
  const Costs measured = MeasuredCosts(steps, program.placement, costs);
  for (int stage = 0; stage < 3; ++stage) {
    EXPECT_EQ(measured.stages[stage].forward_ns, costs.stages[stage].forward_ns);
    EXPECT_EQ(measured.stages[stage].backward_ns, costs.stages[stage].backward_ns);
    EXPECT_EQ(measured.stages[stage].optimizer_ns, costs.stages[stage].optimizer_ns);
  }
  EXPECT_EQ(measured.transfer_latency_ns, costs.transfer_latency_ns);
  EXPECT_EQ(Measure(*Simulate(program, measured)).makespan_ns, Measure(steps[0]).makespan_ns);
}

TEST(MeasuredCosts, GiveBackTheRateOfCollectives) {
  const Program program = *Lower(*Generate("1f1b", {.ranks = 2, .micro_batches = 4}), {.replicas = 2});
  Costs costs = SomeCosts(2);
  costs.collective_ns = 0;
  costs.collective_bytes_per_second = 2e9;
  for (StageCosts& stage : costs.stages) stage.reduce_bytes = stage.gather_bytes = 8000;
  const std::vector<Timeline> steps{*Simulate(program, costs)};
  const Costs measured = MeasuredCosts(steps, program.placement, costs);
  EXPECT_DOUBLE_EQ(measured.collective_bytes_per_second, 2e9);
  EXPECT_EQ(Measure(*Simulate(program, measured)).step_ns, Measure(steps[0]).step_ns);
}

TEST(ExplainIdle, SeparatesOverheadFromWhatTheScheduleMakesWait) {
  const Program program = OneFOneB(2, 3);
  Costs costs = SomeCosts(2);
  costs.transfer_latency_ns = costs.collective_ns = 0;
  Timeline step = *Simulate(program, costs);
  for (const RankIdle& idle : ExplainIdle(step, program.placement)) EXPECT_EQ(idle.overhead_ns, 0);
  const auto explained = ExplainIdle(step, program.placement)[1].explained_ns;
  EXPECT_GE(explained, 1000);  // rank 1 waits for the first forward pass of rank 0
  // All begins 40 later on rank 1, the first time: its input was there.
  for (Span& span : step.spans) {
    if (span.rank == PipelineRank(1) && IsCompute(span.action.kind)) span.begin_ns += 40, span.end_ns += 40;
  }
  EXPECT_GE(ExplainIdle(step, program.placement)[1].overhead_ns, 40);
  const RankBreakdown parts = BreakDown(step)[1];
  const RankIdle idle = ExplainIdle(step, program.placement)[1];
  EXPECT_EQ(parts.compute_ns + parts.optimizer_ns + idle.explained_ns + idle.overhead_ns, parts.step_ns);
}

TEST(Progress, LineHasEveryNumber) {
  const std::string line = FormatProgress({.step = 12,
                                           .steps = 400,
                                           .loss = 2.34567,
                                           .learning_rate = 3e-4,
                                           .gradient_norm = 1.234,
                                           .tokens_per_second = 41234,
                                           .bubble = 0.111,
                                           .left = 200 * kSecond});
  EXPECT_EQ(line, "step 12/400  loss 2.3457  lr 3.00e-04  norm 1.23  41.2k tok/s  bubble 11.1%  left 3m20s");
  EXPECT_THAT(FormatProgress({.skipped = true}), HasSubstr("not finite"));
}

TEST(Progress, DurationsAreShort) {
  EXPECT_EQ(FormatDuration(0), "0s");
  EXPECT_EQ(FormatDuration(59 * kSecond), "59s");
  EXPECT_EQ(FormatDuration(61 * kSecond), "1m01s");
  EXPECT_EQ(FormatDuration(2 * 3600 * kSecond + 300 * kSecond), "2h05m");
}

std::string Printed(ProgressPrinter::Mode mode) {
  char* text = nullptr;
  size_t size = 0;
  std::FILE* out = open_memstream(&text, &size);
  ProgressPrinter printer(out, mode);
  printer.Step({.step = 1, .steps = 2});
  printer.Line("held out");
  printer.Step({.step = 2, .steps = 2});
  printer.Finish();
  std::fclose(out);
  std::string result(text, size);
  std::free(text);
  return result;
}

TEST(Progress, ATerminalsLineIsRedrawnAndAFilesIsNot) {
  EXPECT_EQ(Printed(ProgressPrinter::Mode::kQuiet), "");
  const std::string plain = Printed(ProgressPrinter::Mode::kPlain);
  EXPECT_EQ(std::count(plain.begin(), plain.end(), '\n'), 3);
  EXPECT_EQ(plain.find('\r'), std::string::npos);
  const std::string terminal = Printed(ProgressPrinter::Mode::kTerminal);
  EXPECT_EQ(terminal.rfind("\r\033[K", 0), 0u);
  EXPECT_THAT(terminal, HasSubstr("\nheld out\n"));
  EXPECT_EQ(terminal.back(), '\n');
}

TEST(Sampling, FollowsTheDistribution) {
  const std::vector<float> logits{0.0f, 1.0f, -1.0f, 1.0f};
  EXPECT_EQ(SampleToken(logits, 0, 0.9), 1);
  std::vector<int> counts(4);
  constexpr int kDraws = 100000;
  for (int i = 0; i < kDraws; ++i) ++counts[SampleToken(logits, 0.5, (i + 0.5) / kDraws)];
  double total = 0;
  for (float logit : logits) total += std::exp(logit / 0.5);
  for (int token = 0; token < 4; ++token) {
    EXPECT_NEAR(counts[token], kDraws * std::exp(logits[token] / 0.5) / total, 2) << token;
  }
  EXPECT_EQ(SampleToken(logits, 1e-3, 0.999999999), 3);
}

TEST(FindStragglers, NamesTheRankThatIsSlowBesideItsPlan) {
  const RankGrid grid(2, 2, 1);  // ranks 0 and 1 are the replicas of pipeline rank 0
  const std::vector<RankBreakdown> planned = {{.compute_ns = 100}, {.compute_ns = 300}};
  std::vector<RankBreakdown> measured = {{.compute_ns = 110}, {.compute_ns = 100}, {.compute_ns = 310}, {.compute_ns = 290}};
  EXPECT_TRUE(FindStragglers(measured, planned, grid).empty()) << "more work is no slowness";
  measured[1].compute_ns = 1000;
  const auto stragglers = FindStragglers(measured, planned, grid);
  ASSERT_EQ(stragglers.size(), 1u);
  EXPECT_EQ(stragglers[0].rank, WorldRank(1));
  EXPECT_NEAR(stragglers[0].times_slower, 10, 1);
  EXPECT_TRUE(FindStragglers({{.compute_ns = 5}}, {{.compute_ns = 1}}, RankGrid()).empty()) << "one rank has no others";
}

TEST(RunFacts, ChangesAreNamedWithWhatTheyMean) {
  const RunFacts was = {{"training.batch", "8"}, {"layout.tp", "1"}, {"model", "a\nb\n"}, {"of another version", "1"}};
  EXPECT_TRUE(Compare(was, {{"training.batch", "8"}, {"new", "3"}, {"layout.tp", "1"}}).empty());
  const RunChanges changes = Compare(was, {{"layout.tp", "2"}, {"training.batch", "16"}, {"model", "a\nc\n"}});
  EXPECT_THAT(changes.rounding, testing::ElementsAre("layout.tp was 1, is 2"));
  EXPECT_THAT(changes.training,
              testing::ElementsAre("training.batch was 8, is 16",
                                   "the model is another one: in line 2 of its graph was \"b\", is \"c\""));
}

TEST(CompareReplicas, NamesTheTensorAndTheRanksThatDiffer) {
  const RankGrid grid(2, 2, 2);  // neighbours are shards, then replicas
  std::vector<TensorHash> hashes;
  for (int rank = 0; rank < grid.ranks(); ++rank) {
    const GridPlace place = grid.PlaceOf(WorldRank(rank));
    hashes.push_back({WorldRank(rank), place.pipeline.value() == 0 ? "wte" : "head", 10u + place.shard});
  }
  EXPECT_EQ(CompareReplicas(grid, hashes), absl::OkStatus()) << "shards hold different parts";
  hashes[7].hash = 5;
  const std::string message(CompareReplicas(grid, hashes).message());
  EXPECT_THAT(message, testing::HasSubstr("rank 7 (pipeline rank 1, replica 1, shard 1) holds other values of head than "
                                          "rank 5 (pipeline rank 1, replica 0, shard 1)"));
}

}  // namespace
}  // namespace sluice
