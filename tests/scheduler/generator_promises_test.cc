// What each generator promises, in one table, held against many settings.
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/generators.h"
#include "scheduler/lowering.h"
#include "scheduler/simulate.h"
#include "scheduler/verifier.h"
#include "tests/scheduler/schedule_facts.h"

namespace sluice {
namespace {

// What every generator promises: which numbers it takes, and the most chunks that a rank holds (its formula, or a bound
// where "at most" stands beside it).
struct Promise {
  const char* name;
  bool (*accepts)(int p, int v, int m, int group);
  int (*chunks_max)(int r, int p, int v, int m, int group);
  bool at_most = false;
};

bool OneChunk(int, int v, int, int) { return v == 1; }
bool TwoChunks(int, int v, int, int) { return v <= 2; }  // 1 is unset
bool Groups(int p, int v, int m, int group) {
  if (v < 2) return false;
  return group == 0 ? m % std::max(1, m / p) == 0 : group >= p && (m % group == 0 ? m : m % group) >= p;
}
int GroupOf(int p, int m, int group) { return group == 0 ? m / std::max(1, m / p) : std::min(group, m); }

const Promise kPromises[] = {
    {"gpipe", OneChunk, [](int, int, int, int m, int) { return m; }},
    {"1f1b", OneChunk, [](int r, int p, int, int m, int) { return std::min(m, p - r); }},
    {"eager_1f1b", OneChunk, [](int r, int p, int, int m, int) { return std::min(m, 2 * (p - r) - 1); }},
    {"interleaved_1f1b", Groups,
     [](int r, int p, int v, int m, int group) {
       return std::min(m * v, (v - 1) * GroupOf(p, m, group) + 2 * (p - 1 - r) + 1);
     }},
    {"looped_bfs", [](int, int, int, int) { return true; }, [](int, int, int v, int m, int) { return m * v; }},
    {"zb_h1", OneChunk, [](int, int p, int, int m, int) { return std::min(m, p); }},
    {"zb_h2", OneChunk, [](int, int p, int, int m, int) { return std::min(m, 2 * p - 1); }},
    {"zb_auto", OneChunk, [](int, int p, int, int m, int) { return std::min(m, p); }, true},
    {"interleaved_zb", Groups,
     [](int, int p, int v, int m, int group) { return std::min(m * v, (v - 1) * GroupOf(p, m, group) + p); }},
    {"zb_v", TwoChunks, [](int, int p, int, int m, int) { return 2 * std::min(m, p); }, true},
    {"v_half", TwoChunks, [](int, int p, int, int m, int) { return 2 * std::min(m, (p + 2) / 2); }, true},
    {"v_min", TwoChunks, [](int, int p, int, int m, int) { return 2 * std::min(m, (p + 4) / 3); }, true},
    {"dual_pipe_v", [](int p, int v, int m, int) { return v <= 2 && m >= 2 * p; },
     [](int, int p, int, int, int) { return 2 * p + 1; }, true},
    {"dual_pipe", [](int p, int v, int m, int) { return v == 1 && p % 2 == 0 && m % 2 == 0 && m >= 2 * p; },
     [](int, int p, int, int, int) { return p + 1; }, true},
    {"chimera", [](int p, int v, int m, int) { return v == 1 && p % 2 == 0 && m % 2 == 0; },
     [](int r, int p, int, int m, int) { return std::min(m, std::min(r, p - 1 - r) + p / 2 + 1); }, true},
    // No closed form is known.
    {"hanayo", [](int, int v, int, int) { return v == 1 || v % 2 == 0; },
     [](int, int p, int v, int m, int) { return std::max(v, 2) * std::min(m, 2 * p); }, true},
    {"forward_only", [](int, int, int, int) { return true; }, [](int, int, int v, int m, int) { return m * v; }},
};

TEST(GeneratorsTest, EveryGeneratorKeepsItsPromises) {
  ASSERT_EQ(std::size(kPromises), Generators().size());
  std::mt19937 random(3);
  const auto below = [&](int n) { return static_cast<int>(random() % n); };
  for (const Promise& promise : kPromises) {
    int accepted = 0, reached = 0;
    for (int round = 0; round < 150; ++round) {
      GeneratorParams params{.ranks = 1 + below(8), .chunks = 1 + below(4), .micro_batches = 1 + below(30)};
      if (below(3) == 0) params.group_size = 1 + below(12);
      const auto [p, v, m, group] = std::tuple(params.ranks, params.chunks, params.micro_batches, params.group_size);
      const auto schedule = Generate(promise.name, params);
      const std::string what = absl::StrCat(promise.name, " p=", p, " v=", v, " m=", m, " group=", group);
      ASSERT_EQ(schedule.ok(), promise.accepts(p, v, m, group)) << what << ": " << schedule.status();
      if (!schedule.ok()) continue;
      ++accepted;
      EXPECT_EQ(schedule->placement.ranks(), p);
      // Each action once, on its rank and in an order that can run; weight gradients ascending.
      const auto program = Lower(*schedule);
      ASSERT_TRUE(program.ok()) << what << ": " << program.status();
      const auto report = Verify(*program);
      ASSERT_TRUE(report.ok()) << what << ": " << report.status();
      const std::vector<int> peaks = PeakChunks(*schedule, ActionKind::kWeightGradient);
      for (int r = 0; r < p; ++r) {
        const int most = promise.chunks_max(r, p, v, m, group);
        EXPECT_LE(peaks[r], most) << what << " rank " << r;
        EXPECT_TRUE(promise.at_most || peaks[r] == most) << what << " rank " << r;
        reached += peaks[r] == most;
      }
    }
    EXPECT_GE(accepted, 4) << promise.name;
    EXPECT_GT(reached, 0) << promise.name;
  }
}

TEST(GeneratorsTest, SchedulesThatFollowCostsRunWhateverTheCosts) {
  std::mt19937 random(17);
  for (int i = 0; i < 60; ++i) {
    const bool two = i % 2 == 0;
    const int p = 1 + static_cast<int>(random() % 6);
    GeneratorParams params{.ranks = p, .micro_batches = 1 + static_cast<int>(random() % 16)};
    params.costs = RandomCosts(random, two ? 2 * p : p);
    params.in_flight_cap = i % 3 == 0 ? 0 : 1 + static_cast<double>(random() % 8) / 2;
    const auto program = Lower(*Generate(two ? "zb_v" : "zb_auto", params));
    ASSERT_TRUE(program.ok()) << program.status();
    EXPECT_TRUE(Verify(*program).ok());
  }
}

}  // namespace
}  // namespace sluice
