// The verifier accepts what runs, refuses what does not, and names what is wrong.
#include "scheduler/verifier.h"

#include <algorithm>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/csv.h"
#include "scheduler/deadlock.h"
#include "scheduler/generators.h"
#include "scheduler/lowering.h"
#include "tests/scheduler/brute_force.h"
#include "tests/scheduler/schedule_facts.h"

namespace sluice {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr QueuePolicy kPolicies[] = {QueuePolicy::kOnePerRank, QueuePolicy::kOneCommPerRank,
                                     QueuePolicy::kOnePerDirection, QueuePolicy::kOnePerEdge};

Program Make(const std::string& generator, const GeneratorParams& params, const LoweringOptions& options = {}) {
  const auto schedule = Generate(generator, params);
  EXPECT_TRUE(schedule.ok()) << schedule.status();
  auto program = Lower(*schedule, options);
  EXPECT_TRUE(program.ok()) << program.status();
  return *std::move(program);
}

size_t Find(const Program& program, int rank, const std::string& name) {
  const auto& list = program.ranks[rank];
  for (size_t k = 0; k < list.size(); ++k) {
    if (ToString(list[k]) == name) return k;
  }
  ADD_FAILURE() << name << " is not on rank " << rank;
  return 0;
}

Action& At(Program& program, int rank, const std::string& name) {
  return program.ranks[rank][Find(program, rank, name)];
}

// Takes an action out and puts it in again right before another one.
void MoveBefore(Program& program, int rank, const std::string& name, const std::string& before) {
  auto& list = program.ranks[rank];
  const size_t from = Find(program, rank, name);
  const Action action = list[from];
  list.erase(list.begin() + from);
  list.insert(list.begin() + Find(program, rank, before), action);
}

std::string Refusal(const Program& program, const VerifierOptions& options = {}) {
  const auto report = Verify(program, options);
  EXPECT_FALSE(report.ok()) << ToText(program.ranks);
  return std::string(report.status().message());
}

TEST(VerifierTest, EveryGeneratorRunsUnderEveryPolicy) {
  std::mt19937 random(1);
  const auto below = [&](int n) { return static_cast<int>(random() % n); };
  int verified = 0;
  for (const Generator& generator : Generators()) {
    for (int round = 0; round < 60; ++round) {
      const GeneratorParams params{.ranks = 1 + below(6), .chunks = 1 + below(3), .micro_batches = 1 + below(14)};
      const auto schedule = generator.generate(params);
      if (!schedule.ok()) continue;  // refused with a rule; generators_test asks for the words
      LoweringOptions options{.send_slots = 1 + below(3), .receive_ahead = below(4)};
      options.tied_tensors = {{7, {StageId(0), StageId(schedule->placement.stages() - 1)}}};
      for (QueuePolicy policy : kPolicies) {
        options.queues = policy;
        const auto program = Lower(*schedule, options);
        ASSERT_TRUE(program.ok()) << generator.name << " " << program.status();
        const auto report = Verify(*program);
        ASSERT_TRUE(report.ok()) << generator.name << " p=" << params.ranks << " v=" << params.chunks
                                 << " m=" << params.micro_batches << " " << report.status() << "\n"
                                 << ToText(program->ranks);
        const BruteForceResult result = BruteForceExecute(*program);
        ASSERT_TRUE(result.ok) << generator.name << " " << result.what << "\n" << ToText(program->ranks);
        ++verified;
      }
    }
  }
  EXPECT_GT(verified, 300);
}

TEST(VerifierTest, MutationsAreClassifiedAsByBruteForce) {
  std::mt19937 random(2);
  const auto below = [&](size_t n) { return static_cast<int>(random() % n); };
  int harmless = 0, stuck = 0, wrong = 0;
  for (int round = 0; round < 12000; ++round) {
    const Generator& generator = Generators()[below(Generators().size())];
    const auto schedule =
        generator.generate({.ranks = 1 + below(4), .chunks = 1 + below(2), .micro_batches = 1 + below(6)});
    if (!schedule.ok()) continue;
    auto program = Lower(*schedule, {.queues = kPolicies[below(4)],
                                     .send_slots = 1 + below(2),
                                     .receive_ahead = below(3),
                                     .tied_tensors = {{0, {StageId(0), StageId(schedule->placement.stages() - 1)}}}});
    ASSERT_TRUE(program.ok()) << program.status();
    Mutate(random, *program);
    const auto report = Verify(
        *program, {.weight_gradient_order = WeightGradientOrder::kReported, .progress = ProgressProof::kAsAssigned});
    const BruteForceResult result = BruteForceExecute(*program);
    ASSERT_EQ(report.ok(), result.ok) << "round " << round << ": " << report.status() << " against " << result.what
                                      << "\n"
                                      << ToText(program->ranks);
    const bool deadlock = !report.ok() && report.status().message().find("deadlock") != absl::string_view::npos;
    ASSERT_TRUE(!deadlock || result.stuck) << report.status() << " against " << result.what << "\n"
                                           << ToText(program->ranks);
    ++(result.ok ? harmless : result.stuck ? stuck : wrong);
  }
  // All three kinds must have been met often enough to mean something.
  EXPECT_GT(harmless, 500);
  EXPECT_GT(stuck, 60);
  EXPECT_GT(wrong, 3000);
}

TEST(VerifierTest, NamesAMissingAction) {
  Program program = Make("1f1b", {.ranks = 2, .micro_batches = 4});
  program.ranks[0].erase(program.ranks[0].begin() + Find(program, 0, "0SEND_F1"));
  EXPECT_EQ(Refusal(program), "0SEND_F1 is missing on rank 0");
  program = Make("gpipe", {.ranks = 2, .micro_batches = 4});
  program.ranks[1].pop_back();
  EXPECT_EQ(Refusal(program), "OPTIMIZER_STEP is missing on rank 1");
  program = Make("gpipe", {.ranks = 2, .micro_batches = 4});
  program.ranks[1].erase(program.ranks[1].end() - 2);
  EXPECT_EQ(Refusal(program), "COLLECTIVE0 is missing on rank 1");
}

TEST(VerifierTest, NamesADoubledAction) {
  Program program = Make("1f1b", {.ranks = 2, .micro_batches = 2});
  program.ranks[1].insert(program.ranks[1].begin() + 4, At(program, 1, "1F0"));
  EXPECT_EQ(Refusal(program), "rank 1, entry 4: 1F0 stands twice in the list");
}

TEST(VerifierTest, NamesAnActionOnTheWrongRank) {
  Program program = Make("gpipe", {.ranks = 2, .micro_batches = 2});
  At(program, 0, "0F1").stage = StageId(1);
  EXPECT_THAT(Refusal(program), HasSubstr("1F1 belongs on rank 1"));
  program = Make("gpipe", {.ranks = 3, .micro_batches = 2});
  At(program, 0, "0SEND_F1").peer = PipelineRank(2);
  EXPECT_THAT(Refusal(program), HasSubstr("0SEND_F1 names rank 2, but stage 1 is on rank 1"));
}

TEST(VerifierTest, NamesSwappedActions) {
  Program program = Make("1f1b", {.ranks = 2, .micro_batches = 2});
  MoveBefore(program, 1, "1F0", "1RECV_F0");
  EXPECT_EQ(Refusal(program), "rank 1, entry 0: 1F0 comes before its input");
  program = Make("1f1b", {.ranks = 2, .micro_batches = 2});
  MoveBefore(program, 1, "1B0", "1F0");
  EXPECT_THAT(Refusal(program), HasSubstr("1B0 comes before its F"));
  program = Make("1f1b", {.ranks = 2, .micro_batches = 2});
  MoveBefore(program, 0, "0SEND_F0", "0F0");
  EXPECT_THAT(Refusal(program), HasSubstr("0SEND_F0 comes before the F that makes its message"));
  program = Make("1f1b", {.ranks = 2, .micro_batches = 2});
  MoveBefore(program, 0, "0B0", "0RECV_B0");
  EXPECT_THAT(Refusal(program), HasSubstr("0B0 comes before its gradient"));
  program = Make("1f1b", {.ranks = 2, .micro_batches = 2});
  MoveBefore(program, 0, "COLLECTIVE0", "0B1");
  EXPECT_THAT(Refusal(program), HasSubstr("0B1 comes after the rank's end of the step"));
}

TEST(VerifierTest, NamesCrossedTransfers) {
  Program program = Make("gpipe", {.ranks = 2, .micro_batches = 3});
  program.ranks[0].insert(program.ranks[0].begin() + Find(program, 0, "0SEND_F1") + 1, At(program, 0, "0SEND_F0"));
  program.ranks[0].erase(program.ranks[0].begin() + Find(program, 0, "0SEND_F0"));
  EXPECT_EQ(
      Refusal(program),
      "crossed messages from rank 0 to rank 1: 0SEND_F1 is posted before 0SEND_F0 (queue up), but 1RECV_F0 before "
      "1RECV_F1");
}

TEST(VerifierTest, NamesEndsInDifferentQueues) {
  Program program = Make("gpipe", {.ranks = 2, .micro_batches = 3});
  At(program, 1, "1RECV_F2").queue = QueueId(3);
  EXPECT_EQ(Refusal(program),
            "0SEND_F2 is in queue up on rank 0, but its other end 1RECV_F2 is in queue down on rank 1");
}

TEST(VerifierTest, NamesASlotThatIsHeld) {
  Program program = Make("gpipe", {.ranks = 2, .micro_batches = 3});
  At(program, 1, "1RECV_F1").slot = At(program, 1, "1RECV_F0").slot;
  EXPECT_THAT(Refusal(program),
              HasSubstr("1RECV_F1 writes slot 0 of INPUT of stage 1, which micro-batch 0 still holds"));
  program = Make("gpipe", {.ranks = 2, .micro_batches = 3});
  At(program, 1, "1RECV_F1").slot = 9;
  EXPECT_THAT(Refusal(program), HasSubstr("1RECV_F1 has slot 9, but INPUT of stage 1 has 3 slots"));
  program = Make("gpipe", {.ranks = 2, .micro_batches = 3});
  At(program, 0, "0SEND_F1").slot = 0;
  EXPECT_THAT(Refusal(program), HasSubstr("0SEND_F1 sends slot 0 of OUTPUT, but its message is in 1"));
}

TEST(VerifierTest, NamesTheShortestCycleOfADeadlock) {
  // Both ranks post their SEND first, on one communication lane each.
  Program program = Make("1f1b", {.ranks = 2, .micro_batches = 3}, {.queues = QueuePolicy::kOneCommPerRank});
  MoveBefore(program, 0, "0SEND_F1", "0RECV_B0");
  MoveBefore(program, 1, "1SEND_B0", "1RECV_F1");
  MoveBefore(program, 1, "1B0", "1SEND_B0");
  EXPECT_EQ(Refusal(program),
            "deadlock, ranks 0, 1 wait in a circle: rank 0's 0RECV_B0 stands behind 0SEND_F1 in queue communication, "
            "whose other end is rank 1's 1RECV_F1; rank 1's 1RECV_F1 stands behind 1SEND_B0 in queue communication, "
            "whose other end is rank 0's 0RECV_B0");
}

TEST(VerifierTest, GivesTheDeadlockAsData) {
  Program program = Make("1f1b", {.ranks = 2, .micro_batches = 3}, {.queues = QueuePolicy::kOneCommPerRank});
  EXPECT_FALSE(FindDeadlock(program).has_value());
  MoveBefore(program, 0, "0SEND_F1", "0RECV_B0");
  MoveBefore(program, 1, "1SEND_B0", "1RECV_F1");
  MoveBefore(program, 1, "1B0", "1SEND_B0");
  const auto deadlock = FindDeadlock(program);
  ASSERT_TRUE(deadlock.has_value());
  EXPECT_EQ(Refusal(program), ToString(*deadlock));
  EXPECT_FALSE(deadlock->merged);
  ASSERT_EQ(deadlock->circle.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(deadlock->circle[i].to, deadlock->circle[1 - i].from) << "it closes";
    EXPECT_EQ(deadlock->circle[i].reason, WaitReason::kQueue);
  }
  const ActionPlace stuck = deadlock->circle[0].from;
  EXPECT_EQ(ToString(program.ranks[stuck.rank.index()][stuck.position]), "0RECV_B0");
  EXPECT_TRUE(deadlock->ended[0][Find(program, 0, "0F0")]);
  EXPECT_FALSE(deadlock->ended[0][Find(program, 0, "0SEND_F1")]);
  // What is refused for something else has no circle.
  program.ranks[0].erase(program.ranks[0].begin());
  EXPECT_FALSE(Verify(program).ok());
  EXPECT_FALSE(FindDeadlock(program).has_value());
}

TEST(VerifierTest, FindsDeadlocksOfTheIssuingThread) {
  // Rank 0 runs all forwards first, rank 1 turns each around at once, and each has one slot to send from. The queues
  // alone would let it run; but rank 0's thread stands at 0F3 until 0SEND_F2 has ended, and rank 1's at 1B1 until
  // 1SEND_B0 has.
  auto schedule = Generate("gpipe", {.ranks = 2, .micro_batches = 4});
  schedule->ranks[1].clear();
  for (int i = 0; i < 4; ++i) {
    schedule->ranks[1].push_back(Forward(StageId(1), MicroBatch(i)));
    schedule->ranks[1].push_back(Backward(StageId(1), MicroBatch(i)));
  }
  Program program = *Lower(*schedule, {.send_slots = 1, .receive_ahead = 3});
  EXPECT_TRUE(Verify(program).ok());
  MoveBefore(program, 1, "1RECV_F2", "1F2");
  MoveBefore(program, 1, "1RECV_F3", "1F3");
  EXPECT_TRUE(BruteForceExecute(program).stuck) << ToText(program.ranks);
  EXPECT_EQ(
      Refusal(program),
      "deadlock, ranks 0, 1 wait in a circle: rank 0's 0RECV_B0 is not issued, since the issuing thread stands at "
      "0F3 until 0SEND_F2 has ended, whose other end is rank 1's 1RECV_F2; rank 1's 1RECV_F2 is not issued, since "
      "the issuing thread stands at 1B1 until 1SEND_B0 has ended, whose other end is rank 0's 0RECV_B0");
}

TEST(VerifierTest, CollectivesInDifferentOrderAreADeadlock) {
  const std::vector<StageId> ends = {StageId(0), StageId(2)};
  Program program = Make("1f1b", {.ranks = 3, .micro_batches = 3}, {.tied_tensors = {{5, ends}, {6, ends}}});
  MoveBefore(program, 2, "COLLECTIVE1", "COLLECTIVE0");
  EXPECT_EQ(
      Refusal(program),
      "deadlock, ranks 0, 2 wait in a circle: rank 0's COLLECTIVE1 stands behind COLLECTIVE0 in queue collective, "
      "whose other end is rank 2's COLLECTIVE0; rank 2's COLLECTIVE0 stands behind COLLECTIVE1 in queue "
      "collective, whose other end is rank 0's COLLECTIVE1");
}

TEST(VerifierTest, TheEndOfAStepHasItsOrder) {
  const LoweringOptions tied{.tied_tensors = {{5, {StageId(0), StageId(1)}}}};
  Program program = Make("1f1b", {.ranks = 2, .micro_batches = 2}, tied);
  MoveBefore(program, 1, "COLLECTIVE1", "COLLECTIVE0");
  EXPECT_THAT(Refusal(program), HasSubstr("COLLECTIVE0 exchanges gradients, but comes after the norm"));
  program = Make("1f1b", {.ranks = 2, .micro_batches = 2}, tied);
  MoveBefore(program, 1, "OPTIMIZER_STEP", "COLLECTIVE1");
  EXPECT_THAT(Refusal(program), HasSubstr("COLLECTIVE1 comes after OPTIMIZER_STEP"));
}

TEST(VerifierTest, EveryCopyIsReducedOnceAfterItsLastWeightGradient) {
  const Program good = Make("dual_pipe", {.ranks = 2, .micro_batches = 4});
  EXPECT_TRUE(Verify(good).ok()) << Verify(good).status();
  Program program = good;
  program.ranks[0].erase(program.ranks[0].begin() + Find(program, 0, "0REDUCE_GRAD"));
  EXPECT_EQ(Refusal(program), "0REDUCE_GRAD is missing on rank 0");
  program = good;
  At(program, 0, "0REDUCE_GRAD").collective = -1;
  EXPECT_THAT(Refusal(program), HasSubstr("0REDUCE_GRAD names no collective, but others hold parts of its stage"));
  program = good;
  std::swap(At(program, 0, "0REDUCE_GRAD").collective, At(program, 0, "1REDUCE_GRAD@1").collective);
  EXPECT_THAT(Refusal(program), HasSubstr("names a collective of something else"));
  program = good;
  std::string last;
  for (const Action& a : program.ranks[0]) {
    if (a.stage == StageId(0) && (a.kind == ActionKind::kBackward || a.kind == ActionKind::kWeightGradient)) {
      last = ToString(a);
    }
  }
  MoveBefore(program, 0, "0REDUCE_GRAD", last);
  EXPECT_THAT(Refusal(program), HasSubstr(last + " comes after its stage's REDUCE_GRAD"));
  // Both in the other order on one rank: each stands behind the other's.
  program = good;
  std::swap(At(program, 1, "0REDUCE_GRAD@1"), At(program, 1, "1REDUCE_GRAD"));
  const bool order = Find(good, 1, "0REDUCE_GRAD@1") < Find(good, 1, "1REDUCE_GRAD");
  MoveBefore(program, 1, order ? "0REDUCE_GRAD@1" : "1REDUCE_GRAD", "COLLECTIVE2");
  MoveBefore(program, 1, order ? "1REDUCE_GRAD" : "0REDUCE_GRAD@1", order ? "0REDUCE_GRAD@1" : "1REDUCE_GRAD");
  EXPECT_THAT(Refusal(program), HasSubstr("deadlock, ranks 0, 1 wait in a circle"));
}

TEST(VerifierTest, ShardedStagesAreUnshardedWhenUsed) {
  const auto lowered = [](const std::string& rank) {
    const auto schedule = ReadCsv(rank + "\n", "f.csv");
    EXPECT_TRUE(schedule.ok()) << schedule.status();
    return *Lower(*schedule);
  };
  EXPECT_TRUE(Verify(lowered("0UNSHARD,0F0,0RESHARD,0UNSHARD,0B0,0RESHARD,0REDUCE_GRAD")).ok());
  EXPECT_THAT(Refusal(lowered("0F0,0UNSHARD,0B0,0RESHARD")), HasSubstr("0F0 comes when its stage is sharded"));
  EXPECT_THAT(Refusal(lowered("0UNSHARD,0F0,0RESHARD,0B0")), HasSubstr("0B0 comes when its stage is sharded"));
  EXPECT_THAT(Refusal(lowered("0UNSHARD,0UNSHARD,0F0,0B0")), HasSubstr("0UNSHARD finds its stage unsharded already"));
  EXPECT_THAT(Refusal(lowered("0UNSHARD,0F0,0B0,0RESHARD,0RESHARD")), HasSubstr("comes before its stage's UNSHARD"));
  EXPECT_THAT(Refusal(lowered("0F0,0REDUCE_GRAD,0B0")), HasSubstr("0B0 comes after its stage's REDUCE_GRAD"));
  EXPECT_THAT(Refusal(lowered("0F0,0B0,0REDUCE_GRAD,0REDUCE_GRAD")), HasSubstr("0REDUCE_GRAD stands twice"));
}

TEST(VerifierTest, TheMergedProofIsStricter) {
  // Fine with a lane per direction, a deadlock where all communication of a rank is serialized.
  Program program = Make("1f1b", {.ranks = 2, .micro_batches = 3});
  MoveBefore(program, 0, "0SEND_F1", "0RECV_B0");
  MoveBefore(program, 1, "1SEND_B0", "1RECV_F1");
  MoveBefore(program, 1, "1B0", "1SEND_B0");
  EXPECT_TRUE(Verify(program, {.progress = ProgressProof::kAsAssigned}).ok());
  EXPECT_THAT(Refusal(program), HasSubstr("deadlock when all communication of a rank runs in one queue"));
}

TEST(VerifierTest, WeightGradientsAscendWithinAGroup) {
  auto schedule = Generate("gpipe", {.ranks = 2, .micro_batches = 4});
  for (auto& list : schedule->ranks) std::reverse(list.begin() + 4, list.end());  // the paper's GPipe
  const auto program = Lower(*schedule);
  EXPECT_EQ(Refusal(*program),
            "rank 0 adds weight gradients out of order: 0B2 after micro-batch 3 of the same gradient group");
  const auto report = Verify(*program, {.weight_gradient_order = WeightGradientOrder::kReported});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_THAT(report->weight_gradient_order, HasSubstr("out of order"));
  EXPECT_TRUE(Verify(*program, {.gradient_groups = 4}).ok());
}

// The last stage's I adds the gradient of the head's weight; that of others adds nothing.
TEST(VerifierTest, InputGradientsOfTheLastStageAscendWithinAGroup) {
  const auto with_descending = [](int stage) {
    auto schedule = Generate("gpipe", {.ranks = 2, .micro_batches = 4});
    for (int s = 0; s < 2; ++s) {
      auto& list = schedule->ranks[s];
      list.resize(4);  // the forward passes
      for (int i = 0; i < 4; ++i) list.push_back(InputGradient(StageId(s), MicroBatch(i)));
      if (s == stage) std::swap(list[4], list[5]);
      for (int i = 0; i < 4; ++i) list.push_back(WeightGradient(StageId(s), MicroBatch(i)));
    }
    return *Lower(*schedule);
  };
  EXPECT_TRUE(Verify(with_descending(0), {.gradient_groups = 2}).ok());
  EXPECT_EQ(Refusal(with_descending(1), {.gradient_groups = 2}),
            "rank 1 adds weight gradients out of order: 1I0 after micro-batch 1 of the same gradient group");
}

TEST(VerifierTest, CountsBytesAndRefusesWhatIsOverTheCap) {
  const Program program = Make("1f1b", {.ranks = 2, .micro_batches = 4});
  StageBytes first{.fixed = 1000}, second{.fixed = 2000};
  first.slot[static_cast<size_t>(Pool::kOutput)] = second.slot[static_cast<size_t>(Pool::kInput)] = 10;
  second.slot[static_cast<size_t>(Pool::kInputGradient)] = first.slot[static_cast<size_t>(Pool::kOutputGradient)] = 20;
  first.slot[static_cast<size_t>(Pool::kStash)] = second.slot[static_cast<size_t>(Pool::kStash)] = 100;
  const auto report = Verify(program, {.stage_bytes = {first, second}, .rank_bytes_cap = 2160});
  ASSERT_TRUE(report.ok()) << report.status();
  // Rank 0: 2 OUTPUT, 1 + 1 OUTPUT_GRADIENT, 2 STASH. Rank 1: 1 + 1 INPUT, 2 INPUT_GRADIENT, 1 STASH.
  EXPECT_EQ(report->ranks[0].allocated_bytes, 1000 + 2 * 10 + 2 * 20 + 2 * 100);
  EXPECT_EQ(report->ranks[1].allocated_bytes, 2000 + 2 * 10 + 2 * 20 + 1 * 100);
  EXPECT_EQ(report->in_flight, (std::vector<int>{2, 1}));
  EXPECT_LE(report->ranks[0].live_bytes_max, report->ranks[0].allocated_bytes);
  EXPECT_GE(report->ranks[0].live_bytes_max, 1000 + 2 * 100);
  const auto over = Verify(program, {.stage_bytes = {first, second}, .rank_bytes_cap = 2159});
  EXPECT_EQ(over.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(over.status().message(), "too little memory: rank 1 needs 2160 bytes; the cap is 2159 bytes a rank");
}

TEST(VerifierTest, BothEndsOfAMessageHaveOneSize) {
  const Program program = Make("1f1b", {.ranks = 2, .micro_batches = 4});
  std::vector<StageBytes> bytes(2);
  bytes[0].slot[static_cast<size_t>(Pool::kOutput)] = 10;
  bytes[1].slot[static_cast<size_t>(Pool::kInput)] = 12;
  EXPECT_EQ(Refusal(program, {.stage_bytes = bytes}),
            "messages from stage 0 to stage 1: OUTPUT slots have 10 bytes, but INPUT slots have 12");
}

}  // namespace
}  // namespace sluice
