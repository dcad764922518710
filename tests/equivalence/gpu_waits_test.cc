// The power of the checks on whole jobs: each wait of a stream for an event, one place of the code at a time, is left
// out of some schedules; somewhere it is missed, or nothing needs it and it should be removed.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/equivalence/gpu_jobs.h"

namespace sluice {
namespace {

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
    for (const std::string& site : whole.wait_sites) {
      if (missed[site]) continue;
      missed[site] = runner.OnGpus(job, {.wait_left_out = site}).races > 0;
    }
  }
  EXPECT_GT(missed.size(), 3u) << "places that wait";
  for (const auto& [site, was] : missed) EXPECT_TRUE(was) << "nothing needs the wait at " << site;
}

}  // namespace
}  // namespace sluice
