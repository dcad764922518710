// Generators against the published orders, the table of reference values and the closed forms.
#include "scheduler/generators.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/lowering.h"
#include "scheduler/simulate.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TimelineMetrics Times(const Schedule& schedule, const StageCosts& stage = {}) {
  const auto timeline = SimulateSchedule(schedule, UniformCosts(schedule.placement.stages(), stage));
  EXPECT_TRUE(timeline.ok()) << timeline.status();
  return Measure(*timeline);
}

struct Reference {
  const char* name;
  int chunks;
  int p, m;
  int64_t makespan, span;
};

// F = I = W = 1, no latency.
TEST(GeneratorsTest, ReferenceTimes) {
  const Reference references[] = {
      {"gpipe", 1, 4, 8, 33, 33}, {"gpipe", 1, 4, 12, 45, 45}, {"gpipe", 1, 8, 24, 93, 93},
      {"1f1b", 1, 4, 8, 33, 33},  {"1f1b", 1, 4, 12, 45, 45},  {"1f1b", 1, 8, 24, 93, 93},
  };
  for (const Reference& r : references) {
    const auto schedule = Generate(r.name, {.ranks = r.p, .chunks = r.chunks, .micro_batches = r.m});
    ASSERT_TRUE(schedule.ok()) << schedule.status();
    const TimelineMetrics metrics = Times(*schedule);
    EXPECT_EQ(metrics.makespan_ns, r.makespan) << r.name << " p=" << r.p << " m=" << r.m;
    EXPECT_EQ(metrics.span_ns, r.span) << r.name << " p=" << r.p << " m=" << r.m;
  }
}

TEST(GeneratorsTest, ClosedFormsForEveryNumberOfMicroBatches) {
  for (int p = 1; p <= 6; ++p) {
    for (int m = 1; m <= 15; ++m) {
      for (const char* name : {"gpipe", "1f1b"}) {
        const Schedule schedule = *Generate(name, {.ranks = p, .micro_batches = m});
        EXPECT_EQ(Times(schedule, {.forward_ns = 7, .backward_ns = 13}).makespan_ns, (m + p - 1) * 20) << name;
      }
      const Schedule forward = *Generate("forward_only", {.ranks = p, .micro_batches = m});
      EXPECT_EQ(Times(forward).makespan_ns, m + p - 1);
    }
  }
}

TEST(GeneratorsTest, OrdersOf1F1B) {
  EXPECT_EQ(ToText(Generate("1f1b", {.ranks = 3, .micro_batches = 4})->ranks),
            "0F0 0F1 0F2 0B0 0F3 0B1 0B2 0B3\n"
            "1F0 1F1 1B0 1F2 1B1 1F3 1B2 1B3\n"
            "2F0 2B0 2F1 2B1 2F2 2B2 2F3 2B3\n");
  EXPECT_EQ(ToText(Generate("1f1b", {.ranks = 3, .micro_batches = 1})->ranks), "0F0 0B0\n1F0 1B0\n2F0 2B0\n");
}

TEST(GeneratorsTest, InFlightOf1F1B) {
  for (int p = 1; p <= 6; ++p) {
    for (int m = 1; m <= 10; ++m) {
      const std::vector<int> in_flight = InFlight(*Generate("1f1b", {.ranks = p, .micro_batches = m}));
      for (int r = 0; r < p; ++r) EXPECT_EQ(in_flight[r], std::min(m, p - r));
    }
  }
}

// DeepSpeed's closed form of 1F1B: what each rank does in step t of 2(m+p-1).
TEST(GeneratorsTest, OneFOneBEqualsAnIndependentFormulation) {
  for (int p = 1; p <= 6; ++p) {
    for (int m = 1; m <= 10; ++m) {
      std::vector<std::vector<Action>> ranks(p);
      for (int r = 0; r < p; ++r) {
        for (int t = 0; t < 2 * (m + p - 1); ++t) {
          const bool forward = t % 2 == r % 2;
          const int i =
              forward ? (t - r) / 2 - (t < r) : (t % 2 == 0 ? t / 2 - p + (r + 1) / 2 : (t - 1) / 2 - p + 1 + r / 2);
          if (i < 0 || i >= m) continue;
          ranks[r].push_back(forward ? Forward(StageId(r), MicroBatch(i)) : Backward(StageId(r), MicroBatch(i)));
        }
      }
      EXPECT_EQ(ToText(Generate("1f1b", {.ranks = p, .micro_batches = m})->ranks), ToText(ranks)) << p << " " << m;
    }
  }
}

TEST(GeneratorsTest, RefusesWhatItCannotDo) {
  EXPECT_THAT(std::string(Generate("2f2b", {.ranks = 2}).status().message()), HasSubstr("there are: gpipe, 1f1b"));
  EXPECT_EQ(Generate("1f1b", {.ranks = 2, .micro_batches = 0}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Generate("gpipe", {.ranks = 2, .chunks = 2, .micro_batches = 4}).status().message(),
            "gpipe has 1 stage(s) per rank, not 2; leave the chunks unset");
}

TEST(PlacementTest, Maps) {
  const auto ranks = [](const Placement& placement, int copy) {
    std::vector<int> map;
    for (int s = 0; s < placement.stages(); ++s) map.push_back(placement.RankOf(StageId(s), copy).value());
    return map;
  };
  EXPECT_THAT(ranks(Placement::Loop(3, 2), 0), ElementsAre(0, 1, 2, 0, 1, 2));
  EXPECT_THAT(ranks(Placement::V(3), 0), ElementsAre(0, 1, 2, 2, 1, 0));
  EXPECT_THAT(ranks(Placement::Wave(2, 2), 0), ElementsAre(0, 1, 1, 0, 0, 1, 1, 0));
  EXPECT_THAT(ranks(Placement::Bidirectional(3), 0), ElementsAre(0, 1, 2));
  EXPECT_THAT(ranks(Placement::Bidirectional(3), 1), ElementsAre(2, 1, 0));
}

}  // namespace
}  // namespace sluice
