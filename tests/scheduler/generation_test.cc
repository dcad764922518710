// Generation: tokens go round from the last stage to the first. What is lowered is proven, agrees with the brute force,
// and keeps all ranks at work where there are enough groups.
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/generators.h"
#include "scheduler/idle.h"
#include "scheduler/lowering.h"
#include "scheduler/simulate.h"
#include "scheduler/verifier.h"
#include "tests/scheduler/brute_force.h"
#include "tests/scheduler/schedule_facts.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

constexpr QueuePolicy kPolicies[] = {QueuePolicy::kOnePerRank, QueuePolicy::kOneCommPerRank,
                                     QueuePolicy::kOnePerDirection, QueuePolicy::kOnePerEdge};

Program Make(const GenerationParams& params, const LoweringOptions& options = {}) {
  const auto schedule = GenerateGeneration(params);
  EXPECT_TRUE(schedule.ok()) << schedule.status();
  auto program = Lower(*schedule, options);
  EXPECT_TRUE(program.ok()) << program.status();
  return *std::move(program);
}

TEST(GenerationTest, TokensGoBackToTheFirstStage) {
  const Program program = Make({.ranks = 2, .groups = 2, .rounds = 2});
  EXPECT_EQ(ToText(program.ranks),
            "0F0 0SEND_F0 0F1 0SEND_F1 0RECV_F2 0F2 0RECV_F3 0SEND_F2 0F3 0SEND_F3\n"
            "1RECV_F0 1F0 1RECV_F1 1SEND_F0 1F1 1SEND_F1 1RECV_F2 1F2 1RECV_F3 1F3\n");
  EXPECT_EQ(program.ranks[0][4].peer, PipelineRank(1));
}

TEST(GenerationTest, OneRankWritesItsNextRoundsInput) {
  const Program program = Make({.ranks = 1, .groups = 2, .rounds = 3});
  EXPECT_EQ(ToText(program.ranks), "0F0 0F1 0F2 0F3 0F4 0F5\n");
  EXPECT_EQ(program.PoolSize(Pool::kInput, StageId(0)), 3);  // those of two groups, and the one being written
  EXPECT_EQ(program.ranks[0][0].slot, 0);
  EXPECT_EQ(program.ranks[0][4].slot, -1);  // of the last round nothing goes back
}

TEST(GenerationTest, EveryNumberRunsUnderEveryPolicy) {
  std::mt19937 random(3);
  const auto below = [&](int n) { return static_cast<int>(random() % n); };
  for (int round = 0; round < 150; ++round) {
    const GenerationParams params{.ranks = 1 + below(6), .groups = 1 + below(9), .rounds = 1 + below(7)};
    LoweringOptions options{.send_slots = 1 + below(3), .receive_ahead = below(4)};
    for (const QueuePolicy policy : kPolicies) {
      options.queues = policy;
      const Program program = Make(params, options);
      const auto report = Verify(program);
      ASSERT_TRUE(report.ok()) << report.status() << "\n" << ToText(program.ranks);
      const BruteForceResult result = BruteForceExecute(program);
      ASSERT_TRUE(result.ok) << result.what << "\n" << ToText(program.ranks);
    }
  }
}

TEST(GenerationTest, MutationsAreClassifiedAsByBruteForce) {
  std::mt19937 random(4);
  const auto below = [&](int n) { return static_cast<int>(random() % n); };
  int harmless = 0, stuck = 0, wrong = 0;
  for (int round = 0; round < 6000; ++round) {
    Program program = Make({.ranks = 1 + below(4), .groups = 1 + below(3), .rounds = 1 + below(4)},
                           {.queues = kPolicies[below(4)], .send_slots = 1 + below(2), .receive_ahead = below(3)});
    Mutate(random, program);
    const auto report = Verify(program, {.progress = ProgressProof::kAsAssigned});
    const BruteForceResult result = BruteForceExecute(program);
    ASSERT_EQ(report.ok(), result.ok) << "round " << round << ": " << report.status() << " against " << result.what
                                      << "\n"
                                      << ToText(program.ranks);
    const bool deadlock = !report.ok() && report.status().message().find("deadlock") != absl::string_view::npos;
    ASSERT_TRUE(!deadlock || result.stuck) << report.status() << " against " << result.what << "\n"
                                           << ToText(program.ranks);
    ++(result.ok ? harmless : result.stuck ? stuck : wrong);
  }
  EXPECT_GT(harmless, 300);
  EXPECT_GT(stuck, 30);
  EXPECT_GT(wrong, 1500);
}

TEST(GenerationTest, RefusesGroupsThatDontFit) {
  Program program = Make({.ranks = 2, .groups = 2, .rounds = 2});
  program.groups = 3;
  EXPECT_THAT(std::string(Verify(program).status().message()), HasSubstr("for each of the 3 groups, not 4 in all"));
  EXPECT_THAT(std::string(GenerateGeneration({.groups = 0}).status().message()), HasSubstr("at least one rank"));
}

// As many groups as ranks fill the pipeline; one group leaves all ranks but one without work.
TEST(GenerationTest, GroupsInFlightKeepTheRanksAtWork) {
  Costs costs;
  costs.stages.resize(4, {.forward_ns = 1000, .activation_bytes = 1});
  const auto time = [&](int groups) {
    const auto timeline = Simulate(Make({.ranks = 4, .groups = groups, .rounds = 50}), costs);
    EXPECT_TRUE(timeline.ok()) << timeline.status();
    return Measure(*timeline).step_ns;
  };
  EXPECT_EQ(time(1), 4 * 50 * 1000);
  EXPECT_EQ(time(4), (4 * 50 + 3) * 1000);  // four times the tokens
  EXPECT_EQ(time(6), (6 * 50 + 3) * 1000);
}

}  // namespace
}  // namespace sluice
