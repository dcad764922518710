// The power of the checks on whole jobs: each wait of a stream for an event, one place of the code at a time, is left
// out of some schedules; somewhere it is missed, or nothing needs it and it should be removed.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "tests/equivalence/gpu_jobs.h"

namespace sluice {
namespace {

using Key = std::tuple<int, ActionKind, int, int, int>;  // rank, kind, copy, stage, micro-batch

Key KeyOf(size_t rank, const Action& action) {
  return {static_cast<int>(rank), action.kind, action.copy, action.stage.value(), action.micro_batch.value()};
}

// Whether each transfer began after the one before it in its queue had ended.
bool QueuesAreInOrder(const Program& program, const Timeline& timeline) {
  constexpr Nanoseconds kRounding = 100;  // events tell milliseconds as a float
  std::map<Key, Span> spans;
  for (const Span& span : timeline.spans) spans[KeyOf(span.rank.index(), span.action)] = span;
  for (size_t rank = 0; rank < program.ranks.size(); ++rank) {
    std::map<int, Nanoseconds> ends;  // by queue
    for (const Action& action : program.ranks[rank]) {
      if (!IsTransfer(action.kind)) continue;
      const Span& span = spans.at(KeyOf(rank, action));
      Nanoseconds& end = ends[action.queue.value()];
      if (span.begin_ns + kRounding < end) return false;
      end = span.end_ns;
    }
  }
  return true;
}

bool QueuesAreInOrder(const GpuRun& run) {
  return std::all_of(run.outcomes.begin(), run.outcomes.end(),
                     [&](const TrainingOutcome& outcome) { return QueuesAreInOrder(run.program, outcome.timeline); });
}

TEST(GpuWaits, EachOneLeftOutIsMissed) {
  const GpuJob jobs[] = {
      {"gpt2", "f32", 2, "1f1b", 1, 2, 1, 2},
      {"gpt2", "f32", 2, "interleaved_1f1b", 2, 2, 2, 2},
      {"llama", "f32", 2, "zb_h1", 1, 2, 3, 2},
      {"gpt2", "f32", 4, "gpipe", 1, 2, 4, 2},
  };
  const GpuJobRunner runner;
  std::map<std::string, bool> missed;
  for (const GpuJob& job : jobs) {
    const GpuRun whole = runner.OnGpus(job);
    ASSERT_EQ(whole.reports, "") << ToText(job);
    ASSERT_TRUE(QueuesAreInOrder(whole)) << ToText(job);
    for (const std::string& site : whole.wait_sites) {
      if (missed[site]) continue;
      const GpuRun without = runner.OnGpus(job, {.wait_left_out = site});
      missed[site] = without.races > 0 || !QueuesAreInOrder(without);
    }
  }
  EXPECT_GT(missed.size(), 3u) << "places that wait";
  for (const auto& [site, was] : missed) EXPECT_TRUE(was) << "nothing needs the wait at " << site;
}

// The same over NCCL, whose operations are ordered by nothing else than their streams and these waits.
TEST(GpuWaits, EachOneOverNcclLeftOutIsReported) {
  const GpuJob jobs[] = {
      {.pp = 2, .gpus = 2, .seed = 5, .steps = 2, .nccl = 1},
      {.pp = 2, .gpus = 4, .seed = 6, .steps = 2, .dp = 2, .groups = 2, .zero1 = 1, .nccl = 1},
  };
  const GpuJobRunner runner;
  std::map<std::string, bool> missed;
  for (const GpuJob& job : jobs) {
    const GpuRun whole = runner.OnGpus(job);
    ASSERT_EQ(whole.reports, "") << ToText(job);
    for (const std::string& site : whole.wait_sites) {
      if (!missed[site]) missed[site] = runner.OnGpus(job, {.wait_left_out = site}).races > 0;
    }
  }
  EXPECT_GT(missed.size(), 3u) << "places that wait";
  for (const auto& [site, was] : missed) EXPECT_TRUE(was) << "nothing needs the wait at " << site;
}

}  // namespace
}  // namespace sluice
