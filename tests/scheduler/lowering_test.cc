// Each pass of lowering on a case small enough to read.
#include "scheduler/lowering.h"

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/generators.h"
#include "scheduler/verifier.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Schedule Make(const std::string& name, const GeneratorParams& params) { return *Generate(name, params); }

// "0F0:s1k0" where slot is 1 and stash 0; "0SEND_F0/up" with queues.
std::string Annotate(const Program& program, int rank, bool slots) {
  std::string text;
  for (const Action& a : program.ranks[rank]) {
    absl::StrAppend(&text, text.empty() ? "" : " ", ToString(a));
    if (!slots) {
      absl::StrAppend(&text, "/", program.queues[a.queue.index()].name);
      continue;
    }
    if (a.slot >= 0) absl::StrAppend(&text, ":", a.slot);
    if (a.stash >= 0) absl::StrAppend(&text, "+", a.stash);
  }
  return text;
}

TEST(AddTransfersTest, PutsEachMessageIntoBothLists) {
  const Program program = *AddTransfers(Make("1f1b", {.ranks = 2, .micro_batches = 3}), {});
  EXPECT_EQ(ToText(program.ranks),
            "0F0 0SEND_F0 0F1 0SEND_F1 0RECV_B0 0B0 0F2 0RECV_B1 0SEND_F2 0B1 0RECV_B2 0B2\n"
            "1RECV_F0 1F0 1RECV_F1 1B0 1SEND_B0 1F1 1B1 1SEND_B1 1RECV_F2 1F2 1B2 1SEND_B2\n");
  EXPECT_EQ(program.ranks[0][1].peer, PipelineRank(1));
  EXPECT_EQ(program.ranks[1][0].peer, PipelineRank(0));
}

TEST(AddTransfersTest, SizesThePoolsByWhatIsInFlight) {
  const Program program = *AddTransfers(Make("1f1b", {.ranks = 3, .micro_batches = 8}), {.receive_ahead = 2});
  // INPUT, OUTPUT, OUTPUT_GRADIENT, INPUT_GRADIENT, STASH, GRADIENT_STASH
  EXPECT_THAT(program.pools[0], ElementsAre(0, 2, 1 + 2, 0, 3, 1));
  EXPECT_THAT(program.pools[1], ElementsAre(2 + 2, 2, 1 + 2, 2, 2, 1));
  EXPECT_THAT(program.pools[2], ElementsAre(1 + 2, 0, 0, 2, 1, 1));
}

TEST(AddTransfersTest, StagesOfOneRankExchangeNothing) {
  Schedule schedule{.name = "one rank", .micro_batches = 2, .placement = Placement::V(1)};
  schedule.ranks = {{Forward(StageId(0), MicroBatch(0)), Forward(StageId(1), MicroBatch(0)),
                     Backward(StageId(1), MicroBatch(0)), Backward(StageId(0), MicroBatch(0)),
                     Forward(StageId(0), MicroBatch(1)), Forward(StageId(1), MicroBatch(1)),
                     Backward(StageId(1), MicroBatch(1)), Backward(StageId(0), MicroBatch(1))}};
  const Program program = *AddTransfers(schedule, {});
  EXPECT_EQ(program.ranks, schedule.ranks);
  EXPECT_THAT(program.pools[0], ElementsAre(0, 0, 1, 0, 1, 1));
  EXPECT_THAT(program.pools[1], ElementsAre(1, 0, 0, 0, 1, 1));
}

TEST(AddTransfersTest, PoolsGrowForAnOrderThatConsumesOtherwiseThanItSends) {
  // Stage 1 takes the micro-batches from the last to the first: all must have arrived.
  Schedule schedule = Make("forward_only", {.ranks = 2, .micro_batches = 5});
  std::reverse(schedule.ranks[1].begin(), schedule.ranks[1].end());
  const Program program = *AddTransfers(schedule, {});
  EXPECT_EQ(program.PoolSize(Pool::kInput, StageId(1)), 5);
}

TEST(AddTransfersTest, RefusesAnOrderThatCannotRun) {
  Schedule schedule = Make("gpipe", {.ranks = 2, .micro_batches = 2});
  std::swap(schedule.ranks[0][1], schedule.ranks[0][2]);  // 0B0 before 0F1, while rank 1 wants both forwards first
  EXPECT_EQ(AddTransfers(schedule, {}).status().message(),
            "the order of schedule 'gpipe' can't run: rank 0 stands at 0B0, which waits for the gradient from the next "
            "stage; rank 1 stands at 1F1, which waits for its input");
  schedule = Make("gpipe", {.ranks = 2, .micro_batches = 2});
  schedule.ranks[1].push_back(schedule.ranks[1][0]);
  EXPECT_EQ(AddTransfers(schedule, {}).status().message(), "rank 1: 1F0 stands twice in the list");
  schedule.ranks[1].back() = Forward(StageId(0), MicroBatch(0));
  EXPECT_EQ(AddTransfers(schedule, {}).status().message(), "rank 1: 0F0 belongs on rank 0");
  schedule.ranks[1].back() = Forward(StageId(7), MicroBatch(0));
  EXPECT_THAT(std::string(AddTransfers(schedule, {}).status().message()), HasSubstr("is out of range: 2 stages"));
}

TEST(AddEndOfStepTest, SharedTensorsThenNormThenOptimizer) {
  Program program = *AddTransfers(Make("1f1b", {.ranks = 3, .micro_batches = 1}), {});
  AddEndOfStep(
      {.tied_tensors = {{.tensor = 4, .stages = {StageId(0), StageId(2)}}, {.tensor = 5, .stages = {StageId(1)}}}},
      program);
  EXPECT_EQ(ToText(program.ranks),
            "0F0 0SEND_F0 0RECV_B0 0B0 COLLECTIVE0 COLLECTIVE1 OPTIMIZER_STEP\n"
            "1RECV_F0 1F0 1SEND_F0 1RECV_B0 1B0 1SEND_B0 COLLECTIVE1 OPTIMIZER_STEP\n"
            "2RECV_F0 2F0 2B0 2SEND_B0 COLLECTIVE0 COLLECTIVE1 OPTIMIZER_STEP\n");
  const std::vector<PipelineRank> ends = {PipelineRank(0), PipelineRank(2)};
  const std::vector<PipelineRank> all = {PipelineRank(0), PipelineRank(1), PipelineRank(2)};
  EXPECT_THAT(program.collectives, ElementsAre(Collective{CollectiveKind::kTiedGradients, 4, ends},
                                               Collective{CollectiveKind::kNorm, -1, all}));
}

// On the ranks that hold a stage's copies at the same moment, when both have added all they will.
TEST(AddReductionsTest, FollowsTheLastWeightGradientOfAnyCopy) {
  Program program = *AddTransfers(Make("chimera", {.ranks = 2, .micro_batches = 2}), {});
  AddReductions(program);
  EXPECT_EQ(ToText(program.ranks),
            "0F0 0SEND_F0 1RECV_F1@1 1F1@1 1B1@1 1REDUCE_GRAD@1 1SEND_B1@1 0RECV_B0 0B0 0REDUCE_GRAD\n"
            "0F1@1 1RECV_F0 0SEND_F1@1 1F0 1B0 1REDUCE_GRAD 0RECV_B1@1 1SEND_B0 0B1@1 0REDUCE_GRAD@1\n");
  EXPECT_EQ(program.collectives[1].kind, CollectiveKind::kStageGradients);
  EXPECT_EQ(program.collectives[1].stage, StageId(1));
  EXPECT_THAT(program.collectives[1].members, ElementsAre(PipelineRank(0), PipelineRank(1)));
}

TEST(AddReductionsTest, OneCopyHasNobodyToReduceWith) {
  Program program = *AddTransfers(Make("1f1b", {.ranks = 2, .micro_batches = 2}), {});
  const auto before = program.ranks;
  AddReductions(program);
  EXPECT_EQ(program.ranks, before);
  EXPECT_TRUE(program.collectives.empty());
}

TEST(AddReductionsTest, ThoseOfAFileStayWhereTheyAre) {
  const Program program = *Lower(Make("dual_pipe", {.ranks = 2, .micro_batches = 4}));
  Schedule file{.name = "file", .micro_batches = 4, .placement = program.placement, .ranks = program.ranks};
  for (auto& list : file.ranks) std::erase_if(list, [](const Action& a) { return a.kind >= ActionKind::kCollective; });
  EXPECT_EQ(ToText(Lower(file)->ranks), ToText(program.ranks));
}

// With two copies that run against each other both ends of the model are on one rank, but in different copies: each
// holds another slice of the gradients.
TEST(AddEndOfStepTest, TiedGradientsAreExchangedWithinACopy) {
  Program program = *AddTransfers(Make("chimera", {.ranks = 4, .micro_batches = 4}), {});
  AddEndOfStep({.tied_tensors = {{.tensor = 0, .stages = {StageId(0), StageId(3)}}}}, program);
  ASSERT_EQ(program.collectives.size(), 3u + 4u);
  for (int copy : {0, 1}) {
    EXPECT_THAT(program.collectives[copy].members, ElementsAre(PipelineRank(0), PipelineRank(3)));
    EXPECT_EQ(program.collectives[copy].copy, copy);
  }
}

TEST(AddEndOfStepTest, HoldersOfAStageGatherGradientsBeforeTheStepOrParametersAfterIt) {
  for (const bool zero1 : {false, true}) {
    Program program = *AddTransfers(Make("1f1b", {.ranks = 2, .micro_batches = 1}), {.replicas = 2});
    AddEndOfStep({.zero1 = zero1}, program);
    EXPECT_EQ(ToText(program.ranks), zero1 ? "0F0 0SEND_F0 0RECV_B0 0B0 COLLECTIVE0 OPTIMIZER_STEP COLLECTIVE1\n"
                                             "1RECV_F0 1F0 1B0 1SEND_B0 COLLECTIVE0 OPTIMIZER_STEP COLLECTIVE2\n"
                                           : "0F0 0SEND_F0 0RECV_B0 0B0 COLLECTIVE0 COLLECTIVE1 OPTIMIZER_STEP\n"
                                             "1RECV_F0 1F0 1B0 1SEND_B0 COLLECTIVE0 COLLECTIVE2 OPTIMIZER_STEP\n");
    EXPECT_EQ(program.collectives[2].kind, zero1 ? CollectiveKind::kParameters : CollectiveKind::kSummedGradients);
    EXPECT_EQ(program.collectives[2].stage, StageId(1));
    EXPECT_THAT(program.collectives[2].members, ElementsAre(PipelineRank(1)));
  }
}

TEST(AddUnshardingTest, LooksAheadOverDistinctStages) {
  const auto unsharded = [](const std::vector<Action>& list, int stages, int active) {
    Schedule schedule{.name = "one rank", .micro_batches = 2};
    schedule.placement = Placement(1, stages, 1, std::vector<PipelineRank>(stages, PipelineRank(0)));
    schedule.ranks = {list};
    return ToText(AddUnsharding(schedule, active).ranks);
  };
  const StageId s0(0), s1(1), s2(2);
  const MicroBatch i0(0), i1(1);
  EXPECT_EQ(unsharded({Forward(s0, i0), Forward(s0, i1), Backward(s0, i0), Backward(s0, i1)}, 1, 3),
            "0UNSHARD 0F0 0F1 0B0 0B1 0RESHARD\n");
  EXPECT_EQ(unsharded({Forward(s0, i0), Forward(s1, i0), Backward(s1, i0), Backward(s0, i0)}, 2, 3),
            "0UNSHARD 1UNSHARD 0F0 1F0 1B0 1RESHARD 0B0 0RESHARD\n");
  EXPECT_EQ(unsharded({Forward(s0, i0), Forward(s1, i0), Forward(s2, i0), Backward(s2, i0), Backward(s1, i0),
                       Backward(s0, i0)},
                      3, 2),
            "0UNSHARD 1UNSHARD 0F0 0RESHARD 2UNSHARD 1F0 2F0 2B0 2RESHARD 0UNSHARD 1B0 1RESHARD 0B0 0RESHARD\n");
  const Schedule pairs = Make("dual_pipe_v", {.ranks = 2, .micro_batches = 6});
  const auto program = Lower(AddUnsharding(pairs, 2));
  ASSERT_TRUE(program.ok()) << program.status();
  EXPECT_TRUE(Verify(*program).ok()) << Verify(*program).status();
}

TEST(AddEndOfStepTest, ForwardOnlyHasNone) {
  Program program = *AddTransfers(Make("forward_only", {.ranks = 2, .micro_batches = 2}), {});
  AddEndOfStep({.tied_tensors = {{.tensor = 4, .stages = {StageId(0), StageId(1)}}}}, program);
  EXPECT_EQ(ToText(program.ranks),
            "0F0 0SEND_F0 0F1 0SEND_F1\n"
            "1RECV_F0 1F0 1RECV_F1 1F1\n");
}

TEST(AssignQueuesTest, FollowsThePolicy) {
  Program program = *AddTransfers(Make("1f1b", {.ranks = 3, .micro_batches = 1}), {});
  AddEndOfStep({}, program);
  AssignQueues(QueuePolicy::kOnePerRank, program);
  EXPECT_EQ(Annotate(program, 1, false),
            "1RECV_F0/all 1F0/all 1SEND_F0/all 1RECV_B0/all 1B0/all 1SEND_B0/all COLLECTIVE0/all OPTIMIZER_STEP/all");
  AssignQueues(QueuePolicy::kOneCommPerRank, program);
  EXPECT_EQ(Annotate(program, 1, false),
            "1RECV_F0/communication 1F0/compute 1SEND_F0/communication 1RECV_B0/communication 1B0/compute "
            "1SEND_B0/communication COLLECTIVE0/communication OPTIMIZER_STEP/compute");
  AssignQueues(QueuePolicy::kOnePerDirection, program);
  EXPECT_EQ(Annotate(program, 1, false),
            "1RECV_F0/up 1F0/compute 1SEND_F0/up 1RECV_B0/down 1B0/compute 1SEND_B0/down COLLECTIVE0/collective "
            "OPTIMIZER_STEP/compute");
  AssignQueues(QueuePolicy::kOnePerEdge, program);
  EXPECT_EQ(Annotate(program, 1, false),
            "1RECV_F0/0>1 1F0/compute 1SEND_F0/1>2 1RECV_B0/2>1 1B0/compute 1SEND_B0/1>0 COLLECTIVE0/collective "
            "OPTIMIZER_STEP/compute");
}

TEST(BindSlotsTest, GoesRoundThePools) {
  Program program = *AddTransfers(Make("1f1b", {.ranks = 2, .micro_batches = 4}), {});
  BindSlots(program);
  EXPECT_EQ(Annotate(program, 0, true),
            "0F0:0+0 0SEND_F0:0 0F1:1+1 0SEND_F1:1 0RECV_B0:0 0B0+0 0F2:0+0 0RECV_B1:1 0SEND_F2:0 0B1+0 0F3:1+1 "
            "0SEND_F3:1 0RECV_B2:0 0B2+0 0RECV_B3:1 0B3+0");
  EXPECT_EQ(Annotate(program, 1, true),
            "1RECV_F0:0 1F0+0 1RECV_F1:1 1B0:0+0 1SEND_B0:0 1F1+0 1B1:1+0 1SEND_B1:1 1RECV_F2:0 1F2+0 1B2:0+0 "
            "1RECV_F3:1 1SEND_B2:0 1F3+0 1B3:1+0 1SEND_B3:1");
}

TEST(LowerTest, InFlightOfTheProgramIsThatOfTheSchedule) {
  const Schedule schedule = Make("1f1b", {.ranks = 4, .micro_batches = 8});
  EXPECT_THAT(InFlight(schedule), ElementsAre(4, 3, 2, 1));
  EXPECT_EQ(InFlight(*Lower(schedule)), InFlight(schedule));
  EXPECT_THAT(InFlight(Make("1f1b", {.ranks = 4, .micro_batches = 2})), ElementsAre(2, 2, 2, 1));
  EXPECT_THAT(InFlight(Make("gpipe", {.ranks = 3, .micro_batches = 5})), ElementsAre(5, 5, 5));
  EXPECT_THAT(InFlight(Make("forward_only", {.ranks = 3, .micro_batches = 5})), ElementsAre(1, 1, 1));
}

}  // namespace
}  // namespace sluice
