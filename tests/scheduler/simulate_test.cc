// Times of the simulator against closed forms, and the two metrics of idle time.
#include "scheduler/simulate.h"

#include <algorithm>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/generators.h"
#include "scheduler/idle.h"
#include "scheduler/lowering.h"
#include "scheduler/network.h"

namespace sluice {
namespace {

Costs Unit(int stages, int64_t unit = 1, int64_t latency = 0) {
  Costs costs = UniformCosts(
      stages, {.forward_ns = unit, .input_gradient_ns = unit, .weight_gradient_ns = unit, .backward_ns = 2 * unit});
  costs.transfer_latency_ns = latency;
  return costs;
}

// Spans in an order that doesn't depend on how they were found.
std::vector<std::string> Sorted(const Timeline& timeline) {
  std::vector<std::string> spans;
  for (const Span& span : timeline.spans) {
    spans.push_back(absl::StrCat(span.rank.value(), " ", ToString(span.action), " ", span.begin_ns, " ", span.end_ns));
  }
  std::sort(spans.begin(), spans.end());
  return spans;
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

// A byte a nanosecond: three members take in two thirds of what each makes, or of what all gather.
TEST(SimulateTest, CollectivesLastByTheirBytes) {
  Costs costs = Unit(2, 1000);
  for (StageCosts& stage : costs.stages) stage.reduce_bytes = 6000, stage.gather_bytes = 3000;
  costs.collective_ns = 30;
  costs.collective_bytes_per_second = 1e9;
  costs.norm_bytes = 8;
  costs.tied_bytes = {900};
  const LoweringOptions options{.replicas = 3, .tied_tensors = {{0, {StageId(0), StageId(1)}}}};
  const Program program = *Lower(*Generate("gpipe", {.ranks = 2, .micro_batches = 2}), options);
  const auto timeline = Simulate(program, costs);
  ASSERT_TRUE(timeline.ok()) << timeline.status();
  std::map<std::string, Span> spans;
  for (const Span& span : timeline->spans) spans[ToString(span.action)] = span;
  const auto length = [&](const char* name) { return spans.at(name).end_ns - spans.at(name).begin_ns; };
  EXPECT_EQ(length("1REDUCE_GRAD"), 30 + 4000);
  EXPECT_EQ(spans.at("1REDUCE_GRAD").bytes, 4000);
  EXPECT_EQ(length("COLLECTIVE2"), 30 + 300) << "the tied tensor";
  EXPECT_EQ(length("COLLECTIVE3"), 30 + 8) << "the norm";
  EXPECT_EQ(length("COLLECTIVE5"), 30 + 2000) << "summed gradients";
  // The last stage's gradients move while the first stage still computes.
  EXPECT_EQ(spans.at("1REDUCE_GRAD").begin_ns, spans.at("1B1").end_ns);
  EXPECT_LT(spans.at("1REDUCE_GRAD").begin_ns, spans.at("0B1").begin_ns + 1);
  EXPECT_GT(spans.at("1REDUCE_GRAD").end_ns, spans.at("0B1").begin_ns);
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

// A network that never has two messages compete gives what no network gives, message by message.
TEST(ScenarioTest, MessagesThatDontCompeteTakeWhatTheyTakeAlone) {
  for (const Generator& generator : Generators()) {
    for (int v : {1, 2}) {
      const auto schedule = generator.generate({.ranks = 4, .chunks = v, .micro_batches = 8});
      if (!schedule.ok()) continue;
      const Costs costs = Unit(schedule->placement.stages(), 1000, 130);
      for (QueuePolicy policy : {QueuePolicy::kOnePerRank, QueuePolicy::kOneCommPerRank, QueuePolicy::kOnePerEdge}) {
        const Program program = *Lower(*schedule, {.queues = policy});
        Timeline alone = *Simulate(program, costs);
        Timeline hosts = *Simulate(program, costs, {.network = {.ranks_per_host = 1, .host_latency_ns = 130}});
        EXPECT_EQ(Sorted(alone), Sorted(hosts)) << generator.name;
      }
    }
  }
}

TEST(ScenarioTest, JitterComesFromItsSeedAndStaysWithinItsShare) {
  const Program program = *Lower(*Generate("zb_h1", {.ranks = 4, .micro_batches = 12}));
  const Costs costs = Unit(4, 1'000'000, 50'000);
  const auto run = [&](uint64_t seed) { return *Simulate(program, costs, {.jitter = 0.2, .seed = seed}); };
  const Timeline first = run(7);
  EXPECT_EQ(Sorted(first), Sorted(run(7)));
  EXPECT_NE(Sorted(first), Sorted(run(8)));
  double sum = 0;
  int count = 0;
  for (const Span& span : first.spans) {
    if (!IsCompute(span.action.kind)) continue;
    const double share = static_cast<double>(span.end_ns - span.begin_ns) / 1e6;
    EXPECT_GE(share, 0.8);
    EXPECT_LE(share, 1.2);
    sum += share;
    ++count;
  }
  EXPECT_NEAR(sum / count, 1, 0.05);  // 144 numbers of deviation 0.12: five times the deviation of their mean
}

TEST(ScenarioTest, AStragglerComputesSlowerAndNobodyElse) {
  const Program program = *Lower(*Generate("1f1b", {.ranks = 3, .micro_batches = 20}));
  const TimelineMetrics metrics = Measure(*Simulate(program, Unit(3, 100), {.slowdown = {1, 2.5, 1}}));
  EXPECT_EQ(metrics.ranks[0].busy_ns, 20 * 300);
  EXPECT_EQ(metrics.ranks[1].busy_ns, 20 * 750);
  // Rank 0's first F; rank 1, which after its two forwards (600) waits for rank 2's first B (650); rank 0's last B.
  EXPECT_EQ(metrics.makespan_ns, 100 + 20 * 750 + 50 + 200);
}

TEST(ScenarioTest, OneEngineMovesOneMessageAtATime) {
  constexpr int kMicroBatches = 10;
  Costs costs = Unit(3, 1, 1000);
  const Program program = *Lower(*Generate("forward_only", {.ranks = 3, .micro_batches = kMicroBatches}),
                                 {.queues = QueuePolicy::kOnePerEdge});
  const auto makespan = [&](TransferEngines engines) {
    return Measure(*Simulate(program, costs, {.network = {.engines = engines}})).makespan_ns;
  };
  // The middle rank receives and sends each micro-batch: at once, or one after the other.
  EXPECT_NEAR(makespan(TransferEngines::kTwo), (kMicroBatches + 1) * 1000, 50);
  EXPECT_GE(makespan(TransferEngines::kOne), 2 * kMicroBatches * 1000);
  EXPECT_EQ(makespan(TransferEngines::kTwo), makespan(TransferEngines::kUnlimited));
}

Network::Message Message(int from, int to, int64_t ready_ns, double bytes, int number = 0) {
  return {.from = PipelineRank(from),
          .to = PipelineRank(to),
          .ready_ns = ready_ns,
          .alone_ns = 100,
          .bytes = bytes,
          .rank = PipelineRank(from),
          .position = number};
}

std::vector<std::pair<int, int64_t>> Arrivals(Network& network) {
  std::vector<std::pair<int, int64_t>> arrivals;
  while (const auto delivery = network.Next()) arrivals.emplace_back(delivery->message.position, delivery->end_ns);
  return arrivals;
}

using ::testing::ElementsAre;
using ::testing::Pair;

TEST(NetworkTest, MessagesShareALineEvenly) {
  const NetworkOptions options{
      .ranks_per_host = 2, .host_latency_ns = 10, .host_bytes_per_second = 1e9};  // a byte a ns
  Network network(options, 6);
  network.Post(Message(0, 2, 0, 1000, 1));    // alone until 500, then half the rate: 1500
  network.Post(Message(1, 3, 500, 1000, 2));  // half the rate until 1500, then alone: 2000
  network.Post(Message(2, 1, 0, 1000, 3));    // the other way: not their line
  network.Post(Message(2, 3, 0, 1000, 4));    // within a host: alone_ns
  EXPECT_THAT(Arrivals(network), ElementsAre(Pair(4, 100), Pair(3, 1010), Pair(1, 1510), Pair(2, 2010)));
}

TEST(NetworkTest, TheMoreCrowdedOfTwoLinesCounts) {
  const NetworkOptions options{.ranks_per_host = 1, .host_bytes_per_second = 1e9};
  Network network(options, 4);
  network.Post(Message(0, 2, 0, 300, 1));  // into host 2 with another: half until 600, when both are there
  network.Post(Message(1, 2, 0, 300, 2));
  network.Post(Message(1, 3, 0, 300, 3));  // shares host 1's line with the second
  EXPECT_THAT(Arrivals(network), ElementsAre(Pair(1, 600), Pair(2, 600), Pair(3, 600)));
}

TEST(NetworkTest, AnEngineTakesTheMessageThatWaitedLongest) {
  Network two({.engines = TransferEngines::kTwo}, 4);
  two.Post(Message(0, 1, 0, 0, 1));
  two.Post(Message(0, 2, 5, 0, 2));  // rank 0 sends one at a time
  two.Post(Message(3, 0, 6, 0, 3));  // and receives meanwhile
  two.Post(Message(0, 3, 1, 0, 4));
  EXPECT_THAT(Arrivals(two), ElementsAre(Pair(1, 100), Pair(3, 106), Pair(4, 200), Pair(2, 300)));
  Network one({.engines = TransferEngines::kOne}, 4);
  one.Post(Message(0, 1, 0, 0, 1));
  one.Post(Message(3, 0, 1, 0, 2));
  one.Post(Message(2, 3, 2, 0, 3));  // free at once: the second has not taken rank 3 yet
  EXPECT_THAT(Arrivals(one), ElementsAre(Pair(1, 100), Pair(3, 102), Pair(2, 202)));
}

TEST(IdleTest, CausesAddUpToTheMakespanExactly) {
  for (const Generator& generator : Generators()) {
    for (int v : {1, 2}) {
      const auto schedule = generator.generate({.ranks = 4, .chunks = v, .micro_batches = 8});
      if (!schedule.ok()) continue;
      Costs costs = Unit(schedule->placement.stages(), 1000, 70);
      costs.stages[1].forward_ns = 1700;
      const Timeline timelines[] = {
          *Simulate(*Lower(*schedule), costs),
          *Simulate(*Lower(*schedule), costs,
                    {.network = {.engines = TransferEngines::kOne}, .jitter = 0.3, .seed = 3}),
          *SimulateSchedule(*schedule, costs)};
      for (const Timeline& timeline : timelines) {
        const TimelineMetrics metrics = Measure(timeline);
        const std::vector<IdleCauses> ranks = ExplainIdle(timeline);
        ASSERT_EQ(ranks.size(), 4u);
        for (size_t r = 0; r < ranks.size(); ++r) {
          EXPECT_EQ(ranks[r].busy_ns, metrics.ranks[r].busy_ns) << generator.name;
          EXPECT_EQ(ranks[r].busy_ns + ranks[r].idle_ns(), metrics.makespan_ns) << generator.name;
        }
      }
    }
  }
}

TEST(IdleTest, GPipeIdlesAsItsFigureShows) {
  const std::vector<IdleCauses> ranks =
      ExplainIdle(*Simulate(*Lower(*Generate("gpipe", {.ranks = 4, .micro_batches = 8})), Unit(4)));
  for (int r = 0; r < 4; ++r) {
    // The first activation comes r forwards late, the last gradient leaves 2r early; between them the way there and
    // back.
    EXPECT_EQ(ranks[r], (IdleCauses{.busy_ns = 24, .warm_up_ns = r, .cool_down_ns = 2 * r, .gradient_ns = 9 - 3 * r}));
  }
}

TEST(IdleTest, ATransferIsIdleTimeOfItsOwn) {
  const std::vector<IdleCauses> ranks =
      ExplainIdle(*Simulate(*Lower(*Generate("gpipe", {.ranks = 2, .micro_batches = 1})), Unit(2, 1000, 5)));
  EXPECT_EQ(ranks[0], (IdleCauses{.busy_ns = 3000, .gradient_ns = 3005, .transfer_ns = 5}));
  EXPECT_EQ(ranks[1], (IdleCauses{.busy_ns = 3000, .warm_up_ns = 1005, .cool_down_ns = 2005}));
}

TEST(IdleTest, MeasuredSpansAreReadAlike) {
  const PipelineRank rank(1);
  const StageId stage(1);
  const MicroBatch i(0), j(1);
  const auto end = [&](ActionKind kind, int s) { return Action{.kind = kind, .stage = StageId(s), .micro_batch = j}; };
  Timeline timeline{.source = TimelineSource::kMeasured, .ranks = 3, .stages = 2, .micro_batches = 2};
  timeline.spans = {{rank, Forward(stage, i), 10, 20},
                    {rank, end(ActionKind::kRecvForward, 1), 12, 40},             // posted long before it came
                    {PipelineRank(0), end(ActionKind::kSendForward, 0), 30, 40},  // sent then
                    {rank, Forward(stage, j), 45, 60},
                    {PipelineRank(0), Forward(StageId(0), j), 0, 70}};
  const std::vector<IdleCauses> ranks = ExplainIdle(timeline);
  EXPECT_EQ(
      ranks[1],
      (IdleCauses{
          .busy_ns = 25, .warm_up_ns = 10, .cool_down_ns = 10, .activation_ns = 10, .transfer_ns = 10, .other_ns = 5}));
  EXPECT_EQ(ranks[2], (IdleCauses{.warm_up_ns = 70})) << "computes nothing";
}

// Where the device waits in place of the issuing thread, nothing is later, and with slow messages some things are earlier.
TEST(SimulateTest, IssuingAheadIsNeverLater) {
  const auto key = [](const Span& span) {
    return std::tuple(span.rank.value(), span.action.kind, span.action.copy, span.action.stage.value(),
                      span.action.micro_batch.value(), span.action.collective);
  };
  int earlier = 0;
  for (const Generator& generator : Generators()) {
    for (int chunks : {1, 2}) {
      const auto schedule = generator.generate({.ranks = 4, .chunks = chunks, .micro_batches = 8});
      if (!schedule.ok()) continue;
      const auto program = Lower(*schedule);
      ASSERT_TRUE(program.ok()) << generator.name << ": " << program.status();
      const Costs costs = Unit(schedule->placement.stages(), 1000, 1500);
      std::map<decltype(key(Span{})), int64_t> waiting;
      for (const Span& span : Simulate(*program, costs)->spans) waiting[key(span)] = span.end_ns;
      for (const Span& span : Simulate(*program, costs, {.issue = Issue::kAhead})->spans) {
        EXPECT_LE(span.end_ns, waiting.at(key(span))) << generator.name;
        earlier += span.end_ns < waiting.at(key(span));
      }
    }
  }
  EXPECT_GT(earlier, 0);
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
