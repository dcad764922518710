// Times of the simulator against closed forms, and the two metrics of idle time.
#include "scheduler/simulate.h"

#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/generators.h"
#include "scheduler/lowering.h"

namespace sluice {
namespace {

Costs Unit(int stages, int64_t unit = 1, int64_t latency = 0) {
  Costs costs = UniformCosts(
      stages, {.forward_ns = unit, .input_gradient_ns = unit, .weight_gradient_ns = unit, .backward_ns = 2 * unit});
  costs.transfer_latency_ns = latency;
  return costs;
}

TEST(SimulateTest, AgreesWithTheLeanModelWithoutLatency) {
  for (const Generator& generator : Generators()) {
    for (int p = 1; p <= 4; ++p) {
      for (int m : {1, 3, 4, 8, 12}) {
        for (int v : {1, 2}) {
          const auto schedule = generator.generate({.ranks = p, .chunks = v, .micro_batches = m});
          // The lean model takes an OVERLAP_F_B pair as one piece of work.
          if (!schedule.ok() || absl::StartsWith(generator.name, "dual_pipe")) continue;
          const Costs costs = Unit(schedule->placement.stages());
          const int64_t lean = Measure(*SimulateSchedule(*schedule, costs)).makespan_ns;
          const Program program = *Lower(*schedule, {.queues = QueuePolicy::kOnePerEdge, .receive_ahead = m});
          EXPECT_EQ(Measure(*Simulate(program, costs)).makespan_ns, lean) << generator.name << " " << p << " " << m;
        }
      }
    }
  }
}

TEST(SimulateTest, LatencyCostsWhatTheClosedFormsSay) {
  constexpr int64_t kUnit = 1000, kLatency = 10;
  for (int p : {2, 3, 4, 8}) {
    for (int m : {p, 2 * p, 4 * p}) {
      const Costs costs = Unit(p, kUnit, kLatency);
      const int64_t work = 3 * kUnit * (m + p - 1);
      for (QueuePolicy policy : {QueuePolicy::kOnePerDirection, QueuePolicy::kOnePerEdge}) {
        const auto makespan = [&](const char* name) {
          const Schedule schedule = *Generate(name, {.ranks = p, .micro_batches = m});
          return Measure(*Simulate(*Lower(schedule, {.queues = policy}), costs)).makespan_ns;
        };
        // GPipe pays the way there and back once, 1F1B 2c(p-1)/p for every micro-batch.
        EXPECT_EQ(makespan("gpipe"), work + 2 * (p - 1) * kLatency) << p << " " << m;
        EXPECT_EQ(makespan("1f1b"), work + (2 * (p - 1) * m / p + 2 * (p - 2)) * kLatency) << p << " " << m;
      }
    }
  }
}

TEST(SimulateTest, BandwidthCollectivesAndOptimizerCount) {
  Costs costs = Unit(2, 1000);
  costs.transfer_latency_ns = 5;
  costs.transfer_bytes_per_second = 1e9;  // a byte a ns
  for (StageCosts& stage : costs.stages)
    stage.activation_bytes = 100, stage.gradient_bytes = 50, stage.optimizer_ns = 70;
  costs.collective_ns = 30;
  const Program program = *Lower(*Generate("gpipe", {.ranks = 2, .micro_batches = 1}));
  const auto timeline = Simulate(program, costs);
  ASSERT_TRUE(timeline.ok()) << timeline.status();
  const TimelineMetrics metrics = Measure(*timeline);
  EXPECT_EQ(metrics.makespan_ns, 6000 + 105 + 55);
  EXPECT_EQ(metrics.step_ns, metrics.makespan_ns + 30 + 70);
  for (const Span& span : timeline->spans) {
    if (span.action.kind == ActionKind::kSendForward) {
      EXPECT_EQ(span.bytes, 100);
    }
    if (span.action.kind == ActionKind::kRecvBackward) {
      EXPECT_EQ(span.bytes, 50);
    }
  }
}

TEST(SimulateTest, UnevenStagesAreBoundByTheSlowest) {
  Costs costs = Unit(3, 100);
  costs.stages[1].forward_ns = 300;
  costs.stages[1].backward_ns = 500;
  const Schedule schedule = *Generate("1f1b", {.ranks = 3, .micro_batches = 20});
  const TimelineMetrics metrics = Measure(*Simulate(*Lower(schedule), costs));
  EXPECT_EQ(metrics.busy_ns_max, 20 * 800);
  EXPECT_EQ(metrics.makespan_ns, 100 + 20 * 800 + 200);  // rank 0's first F, rank 1 without a gap, rank 0's last B
  EXPECT_EQ(metrics.ranks[1].busy_ns, 20 * 800);
}

TEST(SimulateTest, MemorySamplesFollowTheSlots) {
  Costs costs = Unit(2, 100);
  costs.stage_bytes.resize(2);
  for (StageBytes& bytes : costs.stage_bytes) {
    bytes.fixed = 1000;
    bytes.slot[static_cast<size_t>(Pool::kStash)] = 10;
  }
  const Program program = *Lower(*Generate("1f1b", {.ranks = 2, .micro_batches = 4}));
  const auto timeline = Simulate(program, costs);
  const TimelineMetrics metrics = Measure(*timeline);
  EXPECT_EQ(metrics.ranks[0].memory_bytes_max, 1000 + 2 * 10);
  EXPECT_EQ(metrics.ranks[1].memory_bytes_max, 1000 + 10);
  EXPECT_EQ(timeline->samples.back().bytes, 1000);
}

TEST(MeasureTest, MakespanAndSpanDiffer) {
  // Two ranks, shifted against each other: each is busy all its time, together they take longer.
  Timeline timeline{.ranks = 2, .stages = 2, .micro_batches = 1};
  timeline.spans = {{PipelineRank(0), Forward(StageId(0), MicroBatch(0)), 0, 10},
                    {PipelineRank(1), Forward(StageId(1), MicroBatch(0)), 10, 20}};
  const TimelineMetrics metrics = Measure(timeline);
  EXPECT_EQ(metrics.makespan_ns, 20);
  EXPECT_EQ(metrics.span_ns, 10);
  EXPECT_DOUBLE_EQ(metrics.makespan_bubble, 0.5);
  EXPECT_DOUBLE_EQ(metrics.span_bubble, 0);
  EXPECT_DOUBLE_EQ(metrics.ranks[0].bubble, 0.5);
}

}  // namespace
}  // namespace sluice
