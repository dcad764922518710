// Whole jobs whose messages go over NCCL between simulated GPUs, as between processes: the same bits as copies between
// the GPUs of one process, near the CPU's numbers, and nothing to report; nothing is allocated after the first step.
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/equivalence/gpu_jobs.h"

namespace sluice {
namespace {

GpuJob Over(GpuJob job, int nccl) {
  job.nccl = nccl;
  job.gpus = job.ranks();
  return job;
}

TEST(GpuNccl, TheSameBitsAsCopiesBetweenGpus) {
  GpuJob jobs[] = {
      {.pp = 2, .schedule = "1f1b", .seed = 1, .dp = 1},
      {.family = "llama", .precision = "bf16", .pp = 4, .schedule = "zb_h1", .seed = 2, .dp = 2, .groups = 2},
      {.pp = 2, .schedule = "zb_v", .chunks = 2, .seed = 3, .dp = 2, .groups = 2, .zero1 = 1},
      {.family = "llama", .pp = 2, .schedule = "gpipe", .seed = 4, .tp = 2, .sequence_parallel = 1},
      {.family = "llama",
       .pp = 2,
       .schedule = "interleaved_1f1b",
       .chunks = 2,
       .seed = 5,
       .dp = 2,
       .tp = 2,
       .groups = 2},
  };
  const GpuJobRunner runner;
  for (GpuJob& job : jobs) {
    job.steps = 4;
    SCOPED_TRACE(ToText(Over(job, 1)));
    const GpuRun copied = runner.OnGpus(Over(job, 0)), sent = runner.OnGpus(Over(job, 1));
    EXPECT_EQ(copied.reports, "");
    EXPECT_EQ(sent.reports, "");
    ASSERT_TRUE(copied.numbers.ok()) << copied.numbers.status();
    ASSERT_TRUE(sent.numbers.ok()) << sent.numbers.status();
    EXPECT_EQ(Difference(*copied.numbers, *sent.numbers), "");
    EXPECT_EQ(sent.counters.back().device_allocations, sent.counters.front().device_allocations);
    EXPECT_EQ(sent.counters.back().synchronisations, sent.counters.at(1).synchronisations);
  }
}

// Sums in another order: 1e-7, which the optimizer's division makes more of from step to step.
TEST(GpuNccl, TrainsAsTheCpu) {
  GpuJob job = {.pp = 2, .schedule = "1f1b", .steps = 20, .dp = 2, .groups = 2};
  const GpuJobRunner runner;
  const auto cpu = runner.OnCpu(job);
  const GpuRun gpus = runner.OnGpus(Over(job, 1));
  ASSERT_TRUE(cpu.ok()) << cpu.status();
  ASSERT_TRUE(gpus.numbers.ok()) << gpus.numbers.status();
  EXPECT_EQ(gpus.reports, "");
  ASSERT_EQ(gpus.numbers->losses.size(), cpu->losses.size());
  for (size_t i = 0; i < cpu->losses.size(); ++i) {
    EXPECT_NEAR(gpus.numbers->losses[i], cpu->losses[i], 1e-3f * cpu->losses[i]) << i;
  }
}

}  // namespace
}  // namespace sluice
