// From a job to a plan that is proven, whose numbers agree with one another, and that refuses what can't be.
#include "runtime/planner/plan.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <functional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/config/schedule.h"
#include "runtime/planner/stage_sizes.h"
#include "stages/cost_model.h"
#include "stages/parameters.h"

namespace sluice {
namespace {

using testing::HasSubstr;

absl::StatusOr<Plan> PlanOf(std::vector<std::string> overrides, const PlanOptions& options = {}) {
  constexpr char kJob[] = R"(model { layers: 6 channels: 64 heads: 4 }
data { text: "t" }
training { batch: 16 micro_batches: 8 sequence: 32 }
)";
  absl::StatusOr<JobConfig> job = ParseJob(kJob, "job", {.overrides = std::move(overrides)});
  if (!job.ok()) return job.status();
  return MakePlan(*job, options);
}

TEST(Plan, EveryLayerIsInOneStageAndNoStageIsEmpty) {
  for (const char* schedule : {"gpipe", "1f1b"}) {
    for (int pp = 1; pp <= 8; ++pp) {
      const auto plan = PlanOf({absl::StrCat("layout.pp=", pp), absl::StrCat("schedule.name=", schedule)});
      ASSERT_TRUE(plan.ok()) << plan.status();
      size_t at = 0;
      for (const StagePlan& stage : plan->stages) {
        EXPECT_EQ(stage.begin, at);
        EXPECT_LT(stage.begin, stage.end);
        at = stage.end;
      }
      EXPECT_EQ(at, plan->job.graph.nodes.size());
      EXPECT_EQ(static_cast<int>(plan->stages.size()), pp);
    }
  }
}

// What the partitioner draws from few questions about bytes (StageSizes::BytesDip).
TEST(Plan, WiderStagesNeedNoLessButForTheDip) {
  for (const char* recompute : {"none", "selective", "full"}) {
    for (const char* schedule : {"1f1b", "zb_h1"}) {
      for (const char* tied : {"true", "false"}) {
        const auto plan = PlanOf({"layout.pp=3", "model.layers=2", "training.gradient_groups=2",
                                  absl::StrCat("training.recompute=", recompute), absl::StrCat("model.tied=", tied),
                                  absl::StrCat("schedule.name=", schedule)});
        ASSERT_TRUE(plan.ok()) << plan.status();
        const std::function<int64_t(const LinearShape&)> packed = [](const LinearShape& s) { return 4 * s.n * s.k; };
        StageSizes sizes(plan->job, plan->training, packed);
        const size_t nodes = plan->job.graph.nodes.size();
        const auto bytes = [&](size_t begin, size_t end) { return sizes.Bytes(1, {begin, end}); };
        for (size_t begin = 0; begin < nodes; ++begin) {
          for (size_t end = begin + 1; end <= nodes; ++end) {  // one layer more on either side
            const int64_t least = bytes(begin, end) - sizes.BytesDip();
            EXPECT_GE(bytes(begin - (begin > 0 ? 1 : 0), end), least) << begin << " " << end;
            EXPECT_GE(bytes(begin, std::min(nodes, end + 1)), least) << begin << " " << end;
            EXPECT_GE(bytes(0, nodes), least) << begin << " " << end;
          }
        }
      }
    }
  }
}

// With limits that bind, and without: it takes no longer for a deep model than a few hundred stages' bytes do.
TEST(Plan, AThousandLayers) {
  for (const auto& [schedule, share] : {std::pair("1f1b", 0.99), {"interleaved_1f1b", 1.0}}) {
    const auto plan_under = [schedule = schedule](const std::string& limit) -> absl::StatusOr<Plan> {
      const auto job =
          ParseJob(R"(model { family: "mlp" layers: 1000 channels: 16 }
data { text: "t" }
training { batch: 8 micro_batches: 8 sequence: 8 }
layout { pp: 4 }
)",
                   "job", {.overrides = {absl::StrCat("schedule.name=", schedule), "layout.memory_limit=" + limit}});
      if (!job.ok()) return job.status();
      return MakePlan(*job, {});
    };
    const auto free = plan_under("100GB");
    ASSERT_TRUE(free.ok()) << free.status();
    EXPECT_GE(free->job.graph.nodes.size(), 1000u);
    const std::vector<int64_t>& bytes = free->partition.bytes;
    const auto limit = static_cast<int64_t>(share * static_cast<double>(*std::max_element(bytes.begin(), bytes.end())));
    const auto bound = plan_under(absl::StrCat(limit));
    ASSERT_TRUE(bound.ok()) << bound.status();
    for (const int64_t needs : bound->partition.bytes) EXPECT_LE(needs, limit);
    EXPECT_GE(bound->partition.load_ns_max, free->partition.load_ns_max);
  }
}

TEST(Plan, InFlightCountsAreTheSchedules) {
  const auto in_flight = [](const Plan& plan) {
    std::vector<int> counts;
    for (const StagePlan& stage : plan.stages) counts.push_back(stage.in_flight);
    return counts;
  };
  EXPECT_THAT(in_flight(*PlanOf({"layout.pp=4"})), testing::ElementsAre(4, 3, 2, 1));
  EXPECT_THAT(in_flight(*PlanOf({"layout.pp=4", "schedule.name=gpipe"})), testing::ElementsAre(8, 8, 8, 8));
}

TEST(Plan, FewerMicroBatchesThanRanks) {
  for (const char* micro_batches : {"1", "2"}) {
    const auto plan = PlanOf({"layout.pp=4", absl::StrCat("training.micro_batches=", micro_batches)});
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_EQ(absl::StrCat(plan->stages[0].in_flight), micro_batches);
  }
}

TEST(Plan, TheProgramsShareSlotsAndPlacement) {
  const auto plan = PlanOf({"layout.pp=3"});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->evaluation.pools, plan->training.pools);
  EXPECT_EQ(plan->generation.pools, plan->training.pools);
  EXPECT_EQ(plan->evaluation.placement, plan->training.placement);
  EXPECT_EQ(plan->evaluation.micro_batches, 8);
  EXPECT_EQ(plan->generation.micro_batches, 1);
  EXPECT_EQ(StageOptionsOf(*plan, plan->stages[0]).stash_slots, plan->training.PoolSize(Pool::kStash, StageId(0)));
}

TEST(Plan, MessagesFitOnBothSidesOfEveryBorder) {
  for (const char* precision : {"f32", "bf16"}) {
    const auto plan = PlanOf({"layout.pp=4", absl::StrCat("training.precision=", precision)});
    ASSERT_TRUE(plan.ok()) << plan.status();
    const auto messages = MessagesOf(*plan);
    for (size_t s = 0; s + 1 < plan->stages.size(); ++s) {
      EXPECT_EQ(messages[s].activation_bytes, plan->stages[s + 1].memory.input_message);
      EXPECT_EQ(messages[s + 1].gradient_bytes, plan->stages[s].memory.output_gradient_message);
    }
    EXPECT_EQ(messages.back().activation_bytes, 0);
    EXPECT_EQ(messages.front().gradient_bytes, 0);
  }
}

TEST(Plan, TiedWeightsNameTheirStages) {
  const auto plan = PlanOf({"layout.pp=3", "layout.cut_before=[\"h.1.mlp\", \"h.4.attn\"]"});
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(plan->tied.size(), 1u);
  EXPECT_THAT(plan->tied[0].stages, testing::ElementsAre(StageId(0), StageId(2)));
  EXPECT_EQ(plan->training.collectives.size(), 2u);  // the tied table, the norm
  EXPECT_TRUE(PlanOf({"model.tied=false"})->tied.empty());
}

TEST(Plan, AMemoryLimitMovesTheCutsAndThenRefusesWithTheBytes) {
  const auto free = PlanOf({"layout.pp=6"});
  ASSERT_TRUE(free.ok()) << free.status();
  const auto bytes = [](const Plan& plan) {
    std::vector<int64_t> all;
    for (const RankReport& rank : plan.report.ranks) all.push_back(rank.allocated_bytes);
    return all;
  };
  EXPECT_EQ(bytes(*free), free->partition.bytes);
  const int64_t most = *std::max_element(free->partition.bytes.begin(), free->partition.bytes.end());
  EXPECT_EQ(bytes(*PlanOf({"layout.pp=6", absl::StrCat("layout.memory_limit=", most)})), bytes(*free));

  int64_t limit = most;
  auto plan = free;
  while (plan.ok()) {  // tighten until nothing fits; whatever fits keeps to the limit
    for (const int64_t rank : bytes(*plan)) EXPECT_LE(rank, limit);
    EXPECT_GE(plan->partition.load_ns_max, free->partition.load_ns_max);
    limit = *std::max_element(plan->partition.bytes.begin(), plan->partition.bytes.end()) - 1;
    plan = PlanOf({"layout.pp=6", absl::StrCat("layout.memory_limit=", limit)});
  }
  EXPECT_LT(limit, most - 1);  // at least one other cut was found on the way
  EXPECT_TRUE(absl::IsResourceExhausted(plan.status()));
  EXPECT_THAT(plan.status().message(), HasSubstr(absl::StrCat("bytes of ", limit, " (over)")));
  EXPECT_THAT(plan.status().message(), HasSubstr("rank 5 needs "));
}

TEST(Plan, GivenCutsAreKept) {
  const auto plan = PlanOf({"layout.pp=2", "layout.layers_per_stage=[1, 14]"});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->stages[0].end, 1u);
  EXPECT_EQ(plan->cut_method, "given in the job");
  const auto tight = PlanOf({"layout.pp=2", "layout.layers_per_stage=[1, 14]", "layout.memory_limit=100kB"});
  EXPECT_THAT(tight.status().message(), HasSubstr("the given cuts don't keep to the memory limit: rank 0 needs "));
}

TEST(Plan, MeasuredTimesTakeTheAnalyticOnesPlace) {
  PlanOptions options;
  options.measured.assign(15,
                          {.forward_ns = 1'000'000, .input_gradient_ns = 1'000'000, .weight_gradient_ns = 1'000'000});
  options.measured[14].forward_ns = 60'000'000;  // the head is dearer than all the others
  const auto plan = PlanOf({"layout.pp=2"}, options);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->stages[1].begin, 14u);
  EXPECT_EQ(plan->cost_source, "measured");
  EXPECT_EQ(plan->stages[1].costs.forward_ns, 60'000'000);
}

TEST(Plan, SeveralStagesOnARankAndSplitBackward) {
  for (const char* schedule : {"interleaved_1f1b", "zb_v"}) {
    const auto plan = PlanOf({"layout.pp=2", "layout.chunks=2", absl::StrCat("schedule.name=", schedule)});
    ASSERT_TRUE(plan.ok()) << schedule << ": " << plan.status();
    EXPECT_EQ(plan->stages.size(), 4u);
    EXPECT_EQ(plan->cut_method, "exact");  // there are few
    EXPECT_EQ(plan->evaluation.placement, plan->training.placement);
    EXPECT_GE(plan->partition.load_ns_max, plan->partition.load_bound_ns);
  }
  const auto split = PlanOf({"layout.pp=2", "schedule.name=zb_h1"});
  ASSERT_TRUE(split.ok()) << split.status();
  EXPECT_EQ(StageOptionsOf(*split, split->stages[0]).backward, BackwardForm::kSplit);
  EXPECT_EQ(StageOptionsOf(*PlanOf({}), PlanOf({})->stages[0]).backward, BackwardForm::kWhole);
}

TEST(Plan, LargeModelsToo) {
  for (const char* name : {"1f1b", "interleaved_1f1b"}) {
    const auto job = ParseJob(
        R"(model { preset: "1558M" } data { tokens: "t" }
                                 training { batch: 64 micro_batches: 32 sequence: 1024 precision: bf16 recompute: selective }
                                 layout { pp: 8 })",
        "job",
        {.overrides = {absl::StrCat("schedule.name=", name), absl::StrCat("layout.chunks=", name[0] == 'i' ? 2 : 1)}});
    ASSERT_TRUE(job.ok()) << job.status();
    const auto plan = MakePlan(*job);
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_EQ(plan->training.placement.stages(), name[0] == 'i' ? 16 : 8);
    // 18 bytes a parameter and more; the head and the embedding are heavier than a block.
    EXPECT_GT(plan->report.ranks[0].allocated_bytes, int64_t{1'557'611'200} / 8 * 18);
    EXPECT_LT(plan->partition.load_ns_max, plan->partition.load_bound_ns * 5 / 4);
  }
}

TEST(Plan, RecomputationTradesTimeForMemory) {
  const auto none = PlanOf({"layout.pp=2"}), full = PlanOf({"layout.pp=2", "training.recompute=full"});
  ASSERT_TRUE(none.ok() && full.ok());
  EXPECT_LT(full->report.ranks[0].allocated_bytes, none->report.ranks[0].allocated_bytes);
  EXPECT_GT(full->metrics.step_ns, none->metrics.step_ns);
}

TEST(Plan, PostValidationIsProvenAndCostsACopyOfTheState) {
  const std::vector<std::string> job = {"layout.pp=4", "schedule.name=zb_h2", "model.tied=false"};
  const auto with_option = [&](const char* option) {
    std::vector<std::string> overrides = job;
    overrides.push_back(absl::StrCat("schedule.post_validation=", option));
    return PlanOf(overrides);
  };
  const auto barrier = with_option("false"), ahead = with_option("true");
  ASSERT_TRUE(barrier.ok()) << barrier.status();
  ASSERT_TRUE(ahead.ok()) << ahead.status();
  EXPECT_FALSE(barrier->post_validation.has_value());
  ASSERT_TRUE(ahead->post_validation.has_value());
  EXPECT_EQ(ahead->post_validation->guess_wrong.pools, ahead->evaluation.pools);
  for (size_t i = 0; i < ahead->stages.size(); ++i) {
    const StageMemory& memory = ahead->stages[i].memory;
    EXPECT_EQ(barrier->stages[i].memory.kept, 0);
    EXPECT_GE(memory.kept, 3 * 4 * ahead->stages[i].parameters);
    EXPECT_LT(memory.kept, memory.parameters + memory.optimizer + 64);
  }
  EXPECT_GT(ahead->report.ranks[0].allocated_bytes, barrier->report.ranks[0].allocated_bytes);
  const auto forward_ns = ahead->stages[0].costs.forward_ns;
  EXPECT_LT(ahead->metrics.step_ns, barrier->metrics.step_ns - forward_ns) << "ranks don't wait for the last one";
  EXPECT_THAT(ToText(*ahead), HasSubstr(" of the span of "));
}

TEST(Plan, PostValidationWantsSharedWeightsOnOneRank) {
  const auto plan = PlanOf({"layout.pp=2", "schedule.post_validation=true", "model.tied=true"});
  EXPECT_EQ(plan.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(plan.status().message()), HasSubstr("schedule.post_validation: stages 0 and 1 share"));
  EXPECT_TRUE(PlanOf({"layout.pp=1", "schedule.post_validation=true", "model.tied=true"}).ok());
  EXPECT_TRUE(PlanOf({"layout.pp=2", "layout.chunks=2", "schedule.name=zb_v", "schedule.post_validation=true",
                      "model.tied=true"})
                  .ok());
}

TEST(Plan, OneRankHasNoBubbleAndMoreMicroBatchesMakeItSmaller) {
  EXPECT_LT(PlanOf({})->metrics.makespan_bubble, 0.01);
  const auto few = PlanOf({"layout.pp=4", "training.micro_batches=4"}),
             many = PlanOf({"layout.pp=4", "training.micro_batches=16"});
  EXPECT_GT(few->metrics.makespan_bubble, many->metrics.makespan_bubble);
}

TEST(Plan, TheTextShowsStagesMemoryAndThePipeline) {
  const auto plan = PlanOf({"layout.pp=3", "layout.memory_limit=1GB", "training.recompute_stages=[full, none, none]"});
  ASSERT_TRUE(plan.ok()) << plan.status();
  const std::string text = ToText(*plan, 100);
  for (const char* part : {"gpt2: 15 nodes", "3 ranks", "8 micro-batches of 2 x 32 tokens", "Stages", "in flight",
                           "wte", "Memory per rank in bytes", "1,000,000,000", "Predicted step: ", "bubble ",
                           "rank 2 |", "F0", "shared by stages 0, 2", "Cuts: exact", "full"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
  for (const absl::string_view line : absl::StrSplit(text, '\n')) EXPECT_LE(line.size(), 150u) << line;
}

TEST(Plan, TheTextShowsWhereEachWorldRankStandsAndWhatItTakesIn) {
  const auto plan = PlanOf({"layout.pp=2", "layout.dp=2", "layout.tp=2", "layout.zero1=true", "layout.rank_order=dp-tp-pp"});
  ASSERT_TRUE(plan.ok()) << plan.status();
  const std::string text = ToText(*plan, 100);
  for (const char* part : {"pp 2 x dp 2 x tp 2 = 8 ranks", "4 for each replica", "World ranks (layout.rank_order dp-tp-pp)",
                           "  replica 0, shard 1                2                6\n", "Taken in by a rank in a step"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
}

TEST(Plan, TwoCopiesOfTheModelAreHeldAndCounted) {
  const auto one = PlanOf({"layout.pp=4", "training.gradient_groups=2"});
  const auto two = PlanOf({"layout.pp=4", "schedule.name=dual_pipe"});
  ASSERT_TRUE(one.ok() && two.ok()) << one.status() << two.status();
  EXPECT_EQ(two->job.training.gradient_groups, 2);
  ASSERT_EQ(two->stages.size(), 8u);
  int64_t parameters = 0;
  for (const StagePlan& stage : two->stages) {
    const StagePlan& first = two->stages[stage.id.index()];
    EXPECT_EQ(stage.rank.value(), stage.copy == 0 ? stage.id.value() : 3 - stage.id.value());
    EXPECT_EQ(stage.memory.parameters, first.memory.parameters);
    EXPECT_EQ(StageOptionsOf(*two, stage).copy, stage.copy);
    parameters += stage.parameters;
  }
  EXPECT_GE(parameters, 2 * ParameterCount(two->job.graph));
  EXPECT_THAT(ToText(*two), HasSubstr("Two copies of the model"));
  EXPECT_THAT(ToText(*two), HasSubstr("0@1"));
}

// The order that trains is the generator's for the costs of the very stages that were cut.
TEST(Plan, GeneratorsFollowTheCostsOfTheCuts) {
  const size_t nodes = PlanOf({})->job.graph.nodes.size();
  const PlanOptions options{.measured = std::vector<LayerTimes>(
                                nodes, {.forward_ns = 3000, .input_gradient_ns = 5000, .weight_gradient_ns = 500})};
  const auto plan = PlanOf({"layout.pp=4", "schedule.name=zb_auto"}, options);
  ASSERT_TRUE(plan.ok()) << plan.status();
  std::vector<PassCosts> costs;
  for (size_t s = 0; s < plan->costs.stages.size(); ++s) {
    const StageCosts& stage = plan->costs.stages[s];
    const StageMemory& memory = plan->stages[s].memory;
    PassCosts& cost = costs.emplace_back();
    cost.forward_ns = stage.forward_ns;
    cost.input_gradient_ns = stage.input_gradient_ns;
    cost.weight_gradient_ns = stage.weight_gradient_ns;
    cost.transfer_ns = plan->costs.transfer_latency_ns;
    if (const double rate = plan->costs.transfer_bytes_per_second; rate > 0) {
      cost.transfer_ns += static_cast<int64_t>(1e9 * static_cast<double>(stage.activation_bytes) / rate);
    }
    cost.forward_bytes = cost.weight_bytes = memory.stash_slot + memory.input_message;
  }
  std::vector<std::vector<Action>> trained = plan->training.ranks;
  for (auto& list : trained) std::erase_if(list, [](const Action& a) { return !IsCompute(a.kind); });
  EXPECT_EQ(ToText(trained), ToText(ScheduleOf(plan->job, costs)->ranks));
  EXPECT_NE(ToText(trained), ToText(ScheduleOf(plan->job)->ranks));
}

TEST(Plan, AScheduleFileThatWouldHangIsRefusedWithTheCycle) {
  const std::string file = std::string(std::getenv("TEST_TMPDIR")) + "/hangs.csv";
  std::ofstream(file) << "0F0,0SEND_F0,0F1,0SEND_F1,0RECV_B0,0B0,0RECV_B1,0B1\n"
                         "1RECV_F0,1F0,1B0,1SEND_B0,1RECV_F1,1F1,1B1,1SEND_B1\n";
  const std::vector<std::string> job = {"schedule.file=" + file, "training.micro_batches=2"};
  const auto refused = PlanOf({job[0], job[1], "schedule.queues=communication"});
  EXPECT_THAT(std::string(refused.status().message()),
              testing::AllOf(HasSubstr("hangs.csv: deadlock"), HasSubstr("ranks 0, 1 wait in a circle")));
  std::ofstream(file) << "0F0,0F1,0B0,0B1\n1F1,1B1,1F0,1B0\n";
  const auto descends = PlanOf(job);
  ASSERT_TRUE(descends.ok()) << descends.status();
  EXPECT_THAT(descends->report.weight_gradient_order, HasSubstr("1B0 after micro-batch 1"));
  EXPECT_THAT(ToText(*descends), HasSubstr("The numbers depend on this schedule"));
}

TEST(Plan, TheMemoryLimitBoundsTheCapOfACostAwareGenerator) {
  const auto free = PlanOf({"layout.pp=4", "schedule.name=zb_auto"});
  ASSERT_TRUE(free.ok()) << free.status();
  int64_t most = 0;
  for (const RankReport& rank : free->report.ranks) most = std::max(most, rank.allocated_bytes);
  const int64_t limit = most * 9 / 10;
  const auto plan = PlanOf({"layout.pp=4", "schedule.name=zb_auto", absl::StrCat("layout.memory_limit=", limit)});
  ASSERT_TRUE(plan.ok()) << plan.status();
  for (const RankReport& rank : plan->report.ranks) EXPECT_LE(rank.allocated_bytes, limit);
  const auto never = PlanOf({"layout.pp=4", "schedule.name=zb_auto", "layout.memory_limit=100kB"});
  EXPECT_EQ(never.status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(CostModel, TheSlowerOfArithmeticAndMemoryDecides) {
  const Node linear{.name = "l", .kind = LayerKind::kLinear, .channels = 1024, .width = 1024};
  const DeviceDescription fast_memory{.flops_f32 = 1e9, .bytes_per_second = 1e15, .layer_overhead_ns = 0};
  // 2 * 64 tokens * 1024 * 1024 FLOPs at 1e9 a second
  EXPECT_EQ(AnalyticTimes(linear, 1, 64, Precision::kF32, Recomputation::kNone, fast_memory).forward_ns, 134'217'728);
  const DeviceDescription slow_memory{.flops_f32 = 1e18, .bytes_per_second = 1e6, .layer_overhead_ns = 0};
  EXPECT_GT(AnalyticTimes(linear, 1, 64, Precision::kF32, Recomputation::kNone, slow_memory).forward_ns, 4'000'000'000);
  // Products overlap with the bytes that they move; what else moves bytes comes before or after, and each is started.
  const Node norm{.name = "n", .kind = LayerKind::kNorm, .channels = 1024};
  const DeviceDescription even{.flops_f32 = 1e9, .bytes_per_second = 1e9, .layer_overhead_ns = 0, .launch_ns = 7};
  const LayerTimes times = AnalyticTimes(norm, 1, 64, Precision::kF32, Recomputation::kNone, even);
  EXPECT_EQ(times.forward_ns, 2 * 4 * 64 * 1024 + 7);
  EXPECT_EQ(AnalyticTimes(linear, 1, 64, Precision::kF32, Recomputation::kNone, even).forward_ns, 134'217'728 + 7);
  const DeviceDescription link{.peer = {.bytes_per_second = 1e9, .latency_ns = 500}};
  EXPECT_EQ(TransferTime(1000, link), 1500);
}

}  // namespace
}  // namespace sluice
