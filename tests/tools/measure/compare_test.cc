// When a difference between two benchmarks is more than noise.
#include "tools/measure/compare.h"

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/tools/measure/test_result.h"

namespace sluice::tools {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<double> Draws(double mean, double deviation, int count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(mean, deviation);
  std::vector<double> draws;
  for (int i = 0; i < count; ++i) draws.push_back(normal(random));
  return draws;
}

TEST(Estimate, IsTheMedianAndThreeOfItsStandardErrors) {
  // Deviations from 10 are 0, 1, 1, 2, 2: their median is 1.
  const Estimate estimate = EstimateOf({8.0, 9.0, 10.0, 11.0, 12.0});
  EXPECT_EQ(estimate.median, 10);
  EXPECT_NEAR(estimate.error, 3 * 1.2533 * 1.4826 * 1 / std::sqrt(5.0), 1e-12);
}

TEST(Estimate, OutliersDontMoveIt) {
  const Estimate calm = EstimateOf({99.0, 100.0, 101.0, 100.0, 100.0, 101.0, 99.0});
  const Estimate disturbed = EstimateOf({99.0, 100.0, 101.0, 100.0, 500.0, 101.0, 99.0});
  EXPECT_EQ(calm.median, disturbed.median);
  EXPECT_EQ(calm.error, disturbed.error);
}

// Three standard errors of a normal median: some 1 in 370 of equal pairs, and the smallest noise makes it fewer.
TEST(Change, EqualProgramsSeldomDiffer) {
  int wrong = 0;
  for (uint32_t seed = 0; seed < 1000; ++seed) {
    wrong += ChangeOf("step", Draws(100, 3, 15, 2 * seed), Draws(100, 3, 15, 2 * seed + 1), 0.01).beyond_noise();
  }
  EXPECT_LE(wrong, 20);
}

TEST(Change, AStepTenPercentSlowerIsFound) {
  int found = 0;
  for (uint32_t seed = 0; seed < 200; ++seed) {
    found += ChangeOf("step", Draws(100, 3, 15, 2 * seed), Draws(110, 3, 15, 2 * seed + 1), 0.01).slower();
  }
  EXPECT_GE(found, 190);
}

TEST(Change, IsNoneWithinTheSmallestNoise) {
  EXPECT_FALSE(ChangeOf("step", {100.0, 100.0}, {102.0, 102.0}, 0.03).beyond_noise());
  EXPECT_TRUE(ChangeOf("step", {100.0, 100.0}, {104.0, 104.0}, 0.03).slower());
  const Change faster = ChangeOf("step", {100.0, 100.0}, {96.0, 96.0}, 0.03);
  EXPECT_TRUE(faster.beyond_noise());
  EXPECT_FALSE(faster.slower());
}

TEST(Compare, StepFirstThenTheLargestDifference) {
  const BenchResult before = SomeResult();
  BenchResult after = before;
  after.operations[1].ms = {10, 10, 10};
  after.operations.push_back({.operation = "copy", .ms = {1, 1, 1}});
  const std::vector<Change> changes = Compare(before, after, 0.01);
  std::vector<std::string> names;
  for (const Change& change : changes) names.push_back(change.what);
  EXPECT_THAT(names, ElementsAre("step", "AdamW", "copy", "linear forward 512 x 3072 x 768 bf16"));
  EXPECT_FALSE(changes[0].beyond_noise());
  EXPECT_TRUE(changes[1].beyond_noise());
  EXPECT_TRUE(changes[2].slower());  // not there before
  EXPECT_FALSE(changes[3].beyond_noise());
}

TEST(Compare, RefusesAnotherMachineOrJob) {
  const BenchResult before = SomeResult();
  EXPECT_TRUE(CheckComparable(before, before, "old.json").ok());
  BenchResult after = before;
  after.processor = "Another, AVX-512";
  EXPECT_THAT(CheckComparable(before, after, "old.json").message(),
              testing::AllOf(HasSubstr("old.json"), HasSubstr("A processor, AVX2 there and Another, AVX-512 here"),
                             HasSubstr("-o FILE")));
  after = before;
  after.job[1].second = "bf16";
  EXPECT_THAT(CheckComparable(before, after, "old.json").message(), HasSubstr("precision is f32 there and bf16 here"));
  after.job.emplace_back("sequence", "256");
  EXPECT_THAT(CheckComparable(before, after, "old.json").message(), HasSubstr("sequence is not known there"));
  after = before;
  after.threads = 4;
  EXPECT_THAT(CheckComparable(before, after, "old.json").message(), HasSubstr("threads is 2 there and 4 here"));
}

TEST(Rounds, CountAsTheirMediansOnceThereAreThree) {
  BenchResult round = SomeResult();
  round.step_ms = {1, 2, 9};
  EXPECT_THAT(MergeRounds({round, round}).step_ms, ElementsAre(1, 2, 9, 1, 2, 9));
  BenchResult slow = round;
  slow.step_ms = {4, 5, 6};
  slow.operations[0].ms = {70, 71, 72};
  const BenchResult merged = MergeRounds({round, slow, round});
  EXPECT_THAT(merged.step_ms, ElementsAre(2, 5, 2));
  EXPECT_THAT(merged.operations[0].ms, ElementsAre(50, 71, 50));
}

}  // namespace
}  // namespace sluice::tools
