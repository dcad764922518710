// Data parallelism: one pipeline's program stands for those of all replicas, and so does its proof.
#include <algorithm>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/csv.h"
#include "scheduler/generators.h"
#include "scheduler/lowering.h"
#include "scheduler/verifier.h"
#include "tests/scheduler/brute_force.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr QueuePolicy kPolicies[] = {QueuePolicy::kOnePerRank, QueuePolicy::kOneCommPerRank,
                                     QueuePolicy::kOnePerDirection, QueuePolicy::kOnePerEdge};

Program Make(const std::string& generator, const GeneratorParams& params, const LoweringOptions& options) {
  auto program = Lower(*Generate(generator, params), options);
  EXPECT_TRUE(program.ok()) << program.status();
  return *std::move(program);
}

size_t Find(const Program& program, int rank, const std::string& name) {
  const auto& list = program.ranks[rank];
  const auto at = std::find_if(list.begin(), list.end(), [&](const Action& a) { return ToString(a) == name; });
  EXPECT_NE(at, list.end()) << name << " is not on rank " << rank;
  return at - list.begin();
}

std::string Refusal(const Program& program) {
  const auto report = Verify(program);
  EXPECT_FALSE(report.ok()) << ToText(program.ranks);
  return std::string(report.status().message());
}

// The lists of all dp x p ranks, replica by replica, as those of one pipeline that holds further copies of the model:
// replica d's ranks follow those of replica d-1, its micro-batches likewise.
class Expansion {
 public:
  explicit Expansion(const Program& program) : one_(program), p_(program.placement.ranks()), all_(program) {
    all_.replicas = 1;
    all_.micro_batches *= one_.replicas;
    all_.ranks.clear();
    all_.pools.clear();
    Place();
    for (size_t c = 0; c < one_.collectives.size(); ++c) AddCollective(c);
    for (int d = 0; d < one_.replicas; ++d) AddReplica(d);
  }
  Program Take() { return std::move(all_); }

 private:
  PipelineRank RankIn(int replica, PipelineRank rank) const { return PipelineRank(replica * p_ + rank.value()); }

  void Place() {
    std::vector<PipelineRank> ranks;
    const Placement& placement = one_.placement;
    for (int d = 0; d < one_.replicas; ++d) {
      for (int copy = 0; copy < placement.copies(); ++copy) {
        for (int s = 0; s < placement.stages(); ++s) ranks.push_back(RankIn(d, placement.RankOf(StageId(s), copy)));
      }
    }
    all_.placement = Placement(p_ * one_.replicas, placement.stages(), placement.copies() * one_.replicas, ranks);
  }

  // One with all replicas, or one in each.
  void AddCollective(size_t c) {
    const Collective& one = one_.collectives[c];
    const bool together = one.kind != CollectiveKind::kTiedGradients;
    all_.collectives[c].members.clear();
    std::vector<int>& numbers = numbers_.emplace_back();
    for (int d = 0; d < one_.replicas; ++d) {
      numbers.push_back(static_cast<int>(d == 0 || together ? c : all_.collectives.size()));
      if (d > 0 && !together) all_.collectives.emplace_back(one).members.clear();
      for (PipelineRank rank : one.members) all_.collectives[numbers[d]].members.push_back(RankIn(d, rank));
    }
  }

  void AddReplica(int d) {
    all_.pools.insert(all_.pools.end(), one_.pools.begin(), one_.pools.end());
    for (const auto& list : one_.ranks) {
      auto& copy = all_.ranks.emplace_back(list);
      for (Action& a : copy) {
        a.copy = static_cast<int16_t>(a.copy + d * one_.placement.copies());
        if (a.micro_batch.valid()) a.micro_batch = MicroBatch(a.micro_batch.value() + d * one_.micro_batches);
        if (a.peer.valid()) a.peer = RankIn(d, a.peer);
        if (a.collective >= 0) a.collective = numbers_[a.collective][d];
      }
    }
  }

  const Program& one_;
  const int p_;
  Program all_;
  std::vector<std::vector<int>> numbers_;  // of each collective, in each replica
};

Program Expand(const Program& program) { return Expansion(program).Take(); }

TEST(ReplicasTest, AReductionStandsRightBehindTheStagesLastWeightGradient) {
  const Program program = Make("1f1b", {.ranks = 2, .micro_batches = 2}, {.replicas = 3});
  EXPECT_EQ(program.replicas, 3);
  EXPECT_EQ(ToText(program.ranks),
            "0F0 0SEND_F0 0F1 0SEND_F1 0RECV_B0 0B0 0RECV_B1 0B1 0REDUCE_GRAD COLLECTIVE2 COLLECTIVE3 OPTIMIZER_STEP\n"
            "1RECV_F0 1F0 1RECV_F1 1B0 1SEND_B0 1F1 1B1 1REDUCE_GRAD 1SEND_B1 COLLECTIVE2 COLLECTIVE4 "
            "OPTIMIZER_STEP\n");
  EXPECT_THAT(program.collectives[1].members, ElementsAre(PipelineRank(1)));
  EXPECT_EQ(program.queues[program.ranks[1][7].queue.index()].name, "collective") << "beside what is computed";
}

TEST(ReplicasTest, ReductionsOfAFileStayWhereTheyAre) {
  const auto schedule = ReadCsv("0F0,0F1,0B0,0B1,0REDUCE_GRAD\n", "file.csv");
  ASSERT_TRUE(schedule.ok()) << schedule.status();
  const Program program = *Lower(*schedule, {.replicas = 2});
  EXPECT_EQ(ToText(program.ranks), "0F0 0F1 0B0 0B1 0REDUCE_GRAD COLLECTIVE1 COLLECTIVE2 OPTIMIZER_STEP\n");
  EXPECT_TRUE(Verify(program).ok()) << Verify(program).status();
}

TEST(ReplicasTest, EvaluationReducesNothing) {
  const Program program = Make("forward_only", {.ranks = 2, .micro_batches = 2}, {.replicas = 2});
  EXPECT_TRUE(program.collectives.empty());
  EXPECT_TRUE(Verify(program).ok()) << Verify(program).status();
}

TEST(ReplicasTest, EveryStageIsReducedOnceAfterItsLastWeightGradientAndBeforeTheNorm) {
  const Program good = Make("zb_h1", {.ranks = 2, .micro_batches = 3}, {.replicas = 2});
  EXPECT_TRUE(Verify(good).ok()) << Verify(good).status();
  const size_t at = Find(good, 1, "1REDUCE_GRAD");
  const auto move_to = [&](size_t place) {
    Program program = good;
    auto& list = program.ranks[1];
    list.erase(list.begin() + at);
    list.insert(list.begin() + place, good.ranks[1][at]);
    return program;
  };
  EXPECT_THAT(Refusal(move_to(Find(good, 1, "1W2"))), HasSubstr("1W2 comes after its stage's REDUCE_GRAD"));
  EXPECT_THAT(Refusal(move_to(Find(good, 1, "COLLECTIVE2"))), HasSubstr("1REDUCE_GRAD comes after the rank's end of"));
  EXPECT_THAT(Refusal(move_to(good.ranks[1].size() - 1)), HasSubstr("1REDUCE_GRAD comes after the rank's end of"));
  Program program = good;
  program.ranks[1].erase(program.ranks[1].begin() + at);
  EXPECT_EQ(Refusal(program), "1REDUCE_GRAD is missing on rank 1");
  program = good;
  program.ranks[1].insert(program.ranks[1].begin() + at, good.ranks[1][at]);
  EXPECT_THAT(Refusal(program), HasSubstr("1REDUCE_GRAD stands twice in the list"));
  program = good;
  program.ranks[1][at].collective = -1;
  EXPECT_THAT(Refusal(program), HasSubstr("1REDUCE_GRAD names no collective, but others hold parts of its stage's"));
  program = good;
  program.replicas = 0;
  EXPECT_EQ(Refusal(program), "the program is for 0 replicas");
  // A program made for one pipeline reduces nothing.
  program = Make("1f1b", {.ranks = 2, .micro_batches = 2}, {});
  program.replicas = 2;
  EXPECT_EQ(Refusal(program), "REDUCE_GRAD of stage 0 of copy 0 is missing");
}

TEST(ReplicasTest, WhatIsGatheredStandsOnItsSideOfTheStep) {
  const GeneratorParams params{.ranks = 2, .micro_batches = 3};
  const Program sums = Make("1f1b", params, {.replicas = 2});
  const Program zero1 = Make("1f1b", params, {.replicas = 2, .zero1 = true});
  for (const Program* program : {&sums, &zero1}) EXPECT_TRUE(Verify(*program).ok()) << Verify(*program).status();
  const auto move_before = [](Program program, const std::string& name, const std::string& before) {
    auto& list = program.ranks[1];
    const Action action = list[Find(program, 1, name)];
    list.erase(list.begin() + Find(program, 1, name));
    list.insert(list.begin() + Find(program, 1, before), action);
    return program;
  };
  EXPECT_THAT(Refusal(move_before(sums, "COLLECTIVE4", "COLLECTIVE2")),
              HasSubstr("COLLECTIVE4 gathers summed gradients, but comes before the norm"));
  EXPECT_THAT(Refusal(move_before(sums, "OPTIMIZER_STEP", "COLLECTIVE4")),
              HasSubstr("COLLECTIVE4 comes after OPTIMIZER_STEP"));
  EXPECT_THAT(Refusal(move_before(zero1, "COLLECTIVE4", "OPTIMIZER_STEP")),
              HasSubstr("COLLECTIVE4 gathers parameters, but comes before OPTIMIZER_STEP"));
  Program program = sums;
  program.ranks[1].erase(program.ranks[1].begin() + Find(program, 1, "COLLECTIVE4"));
  EXPECT_EQ(Refusal(program), "COLLECTIVE4 is missing on rank 1");
  program.collectives.pop_back();
  EXPECT_EQ(Refusal(program), "the summed gradients or the parameters of stage 1 are gathered 0 times, not once");
  program = zero1;
  program.collectives[3].members = {PipelineRank(1)};
  program.ranks[0].erase(program.ranks[0].begin() + Find(program, 0, "COLLECTIVE3"));
  program.ranks[1].push_back(zero1.ranks[0][Find(zero1, 0, "COLLECTIVE3")]);
  EXPECT_EQ(Refusal(program), "COLLECTIVE3 is not between the ranks that hold stage 0");
}

TEST(ReplicasTest, ReductionsInDifferentOrderAreADeadlock) {
  // Two ranks that hold both stages, in different copies, and reduce them in different order.
  const Program good = Make("dual_pipe", {.ranks = 2, .micro_batches = 4}, {.replicas = 2});
  EXPECT_TRUE(Verify(good).ok()) << Verify(good).status();
  Program program = good;
  auto& list = program.ranks[1];
  std::vector<Action> reductions;
  for (const Action& a : list) {
    if (a.kind == ActionKind::kReduceGradient) reductions.insert(reductions.begin(), a);
  }
  std::erase_if(list, [](const Action& a) { return a.kind == ActionKind::kReduceGradient; });
  list.insert(list.begin() + Find(program, 1, "COLLECTIVE2"), reductions.begin(), reductions.end());
  EXPECT_THAT(Refusal(program), HasSubstr("deadlock, ranks 0, 1 wait in a circle"));
  EXPECT_TRUE(BruteForceExecute(Expand(program)).stuck);
}

TEST(ReplicasTest, PostValidationIsRefused) {
  const Schedule schedule = *Generate("1f1b", {.ranks = 2, .micro_batches = 4});
  EXPECT_EQ(Lower(schedule, {.replicas = 2, .norm_check = NormCheck::kPostValidation}).status().message(),
            "the 2 replicas of schedule '1f1b' wait for each other's gradients at the end of every step; train one "
            "pipeline (layout.dp: 1) or leave post-validation off");
}

// Whatever is done to the lists of one pipeline, the lists of all ranks of all replicas then run, stand still, or go
// wrong just as those of the one do.
TEST(ReplicasTest, AllRanksOfAllReplicasRunAsThoseOfOnePipelineDo) {
  std::mt19937 random(3);
  const auto below = [&](size_t n) { return static_cast<int>(random() % n); };
  int runs = 0, stuck = 0, wrong = 0;
  for (int round = 0; round < 9000; ++round) {
    const Generator& generator = Generators()[below(Generators().size())];
    const auto schedule =
        generator.generate({.ranks = 1 + below(3), .chunks = 1 + below(2), .micro_batches = 1 + below(5)});
    if (!schedule.ok() || schedule->pass != PassKind::kTraining) continue;
    auto program = Lower(*schedule, {.queues = kPolicies[below(4)],
                                     .replicas = 2 + below(2),
                                     .send_slots = 1 + below(2),
                                     .receive_ahead = below(3),
                                     .zero1 = below(2) == 0,
                                     .tied_tensors = {{0, {StageId(0), StageId(schedule->placement.stages() - 1)}}}});
    ASSERT_TRUE(program.ok()) << program.status();
    for (int change = below(4); change > 0; --change) {
      auto& list = program->ranks[below(program->ranks.size())];
      const int k = below(list.size());
      if (below(8) == 0) {
        list.erase(list.begin() + k);
      } else {
        std::rotate(list.begin() + std::max(0, k - 1 - below(4)), list.begin() + k, list.begin() + k + 1);
      }
      if (list.empty()) break;
    }
    const BruteForceResult one = BruteForceExecute(*program);
    const Program expanded = Expand(*program);
    const BruteForceResult all = BruteForceExecute(expanded);
    ASSERT_EQ(one.ok, all.ok) << one.what << " against " << all.what << "\n" << ToText(program->ranks);
    ASSERT_EQ(one.stuck, all.stuck) << one.what << " against " << all.what << "\n" << ToText(program->ranks);
    const VerifierOptions options{.weight_gradient_order = WeightGradientOrder::kReported,
                                  .progress = ProgressProof::kAsAssigned};
    ASSERT_EQ(Verify(*program, options).ok(), one.ok) << Verify(*program, options).status() << one.what;
    ASSERT_EQ(Verify(expanded, options).ok(), all.ok) << Verify(expanded, options).status() << all.what;
    ++(one.ok ? runs : one.stuck ? stuck : wrong);
  }
  EXPECT_GT(runs, 500);
  EXPECT_GT(stuck, 60);
  EXPECT_GT(wrong, 500);
}

}  // namespace
}  // namespace sluice
