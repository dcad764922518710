// Slow is not dead: a wait lasts as long as anything in the job moves.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/runtime/executor/programs.h"
#include "tests/sim/affine_job.h"
#include "tests/sim/sim_world.h"

namespace sluice {
namespace {

TEST(WatchdogTest, WhileSomethingMovesElsewhereTheWatchdogIsPatient) {
  AffineJobOptions options = {.training = MakeProgram({.schedule = "1f1b", .ranks = 3, .micro_batches = 3}),
                              .watchdog = {.limit = kSecond, .rest = 100 * kMillisecond}};
  options.faults = {{.kind = FaultKind::kStageStuck, .rank = PipelineRank(1), .at_call = 1}};
  SimWorld world({.seed = 1});
  constexpr Nanoseconds kMovesUntil = 7 * kSecond;
  options.watchdog.moves_elsewhere = [&] { return std::min(world.Now(), kMovesUntil); };
  const AffineJobResult result = RunAffineJob(&world, options);
  EXPECT_EQ(result.statuses[0].code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_GE(world.Now(), kMovesUntil + 3 * options.watchdog.limit / 4);
  EXPECT_LE(world.Now(), kMovesUntil + options.watchdog.limit + 2 * options.watchdog.rest);
}

}  // namespace
}  // namespace sluice
