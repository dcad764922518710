// Whole jobs on simulated GPUs against the CPU: every call of the real trainer, executor and device, in orders that the
// seed chooses, and nothing for the simulator to report.
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/equivalence/run_job.h"
#include "tests/gpu_sim/machine.h"
#include "tests/sim/sim_world.h"

namespace sluice {
namespace {

struct Settings {
  std::string precision = "bf16";
  int pp = 2;
  std::string schedule = "1f1b";
  int chunks = 1;
  int steps = 6;
};

std::string JobText(const Settings& s, const std::string& device) {
  return absl::StrCat(
      "model { family: 'gpt2' layers: 2 heads: 1 channels: 64 positions: 16 dropout: 0.1 vocabulary: 256 }\n"
      "data { text: 'text' hold_out { fraction: 0.1 } }\n"
      "training { steps: ",
      s.steps, " batch: 8 micro_batches: 4 sequence: 16 precision: ", s.precision,
      " }\n"
      "optimizer { learning_rate: 0.003 minimum_learning_rate: 0.0003 warm_up: 3 clip_norm: 0.5 }\n"
      "layout { device: ",
      device, " pp: ", s.pp, " chunks: ", s.chunks,
      " threads_per_rank: 1 pin: false }\n"
      "schedule { name: '",
      s.schedule, "' }\n");
}

class GpuJob : public testing::Test {
 protected:
  GpuJob() : folder_(std::string(std::getenv("TEST_TMPDIR")) + "/gpu_job_XXXXXX") {
    EXPECT_NE(mkdtemp(folder_.data()), nullptr);
    EXPECT_EQ(std::system(("mkdir " + folder_ + "/text").c_str()), 0);
    std::ofstream out(folder_ + "/text/a");
    for (int line = 0; line < 200; ++line) out << "line " << line << " says " << line * line << " and no more.\n";
  }

  JobNumbers OnCpu(const Settings& settings) {
    auto numbers = RunJob(JobText(settings, "cpu"), folder_);
    EXPECT_TRUE(numbers.ok()) << numbers.status();
    return numbers.value_or(JobNumbers{});
  }
  JobNumbers OnGpus(const Settings& settings, int gpus, uint64_t seed, RunOptions how = {}) {
    SimWorld world({.seed = seed});
    gpu_sim::Machine machine({.world = &world, .devices = gpus, .seed = seed});
    how.world = &world;
    auto numbers = RunJob(JobText(settings, "cuda"), folder_, how);
    EXPECT_TRUE(numbers.ok()) << numbers.status();
    EXPECT_EQ(machine.ReportText(), "") << "seed " << seed;
    return numbers.value_or(JobNumbers{});
  }

  std::string folder_;
};

// bf16 has 8 bits: one rounding is 0.4 %. Losses are means over many, and drift apart slowly.
TEST_F(GpuJob, TwoStagesOnTwoGpusTrainAsOnTheCpu) {
  const Settings settings{.steps = 20};
  const JobNumbers cpu = OnCpu(settings), gpu = OnGpus(settings, 2, 1);
  ASSERT_EQ(gpu.losses.size(), cpu.losses.size());
  for (size_t i = 0; i < cpu.losses.size(); ++i) EXPECT_NEAR(gpu.losses[i], cpu.losses[i], 1e-2 * cpu.losses[i]) << i;
  EXPECT_NEAR(gpu.norms[0], cpu.norms[0], 2e-2 * cpu.norms[0]);
  EXPECT_LT(gpu.losses.back(), 0.9 * gpu.losses.front()) << "it learns";
}

// Whatever the cut, the order in which things happen, and who shares a GPU.
TEST_F(GpuJob, CutsOrdersAndSharedGpusGiveTheSameBits) {
  const JobNumbers one = OnGpus({.pp = 1}, 1, 1);
  EXPECT_EQ(Difference(one, OnGpus({.pp = 2}, 2, 2)), "");
  EXPECT_EQ(Difference(one, OnGpus({.pp = 2}, 1, 3)), "");
  EXPECT_EQ(Difference(one, OnGpus({.pp = 2, .schedule = "interleaved_1f1b", .chunks = 2}, 2, 4)), "");
}

// The state is copied while the next step runs, which the simulator would report if its optimizer didn't wait.
TEST_F(GpuJob, ARunThatGoesOnHasTheSameBits) {
  const JobNumbers whole = OnGpus({.pp = 2}, 2, 1);
  SavedRun saved;
  saved.step = 2;
  EXPECT_EQ(Difference(whole, OnGpus({.pp = 2}, 2, 2, {.saved = &saved})), "") << "saving disturbs nobody";
  EXPECT_EQ(Difference(After(2, whole), OnGpus({.pp = 2}, 1, 3, {.resumed = &saved})), "");
  EXPECT_EQ(Difference(After(2, whole), OnGpus({.pp = 1}, 1, 4, {.resumed = &saved})), "");
}

}  // namespace
}  // namespace sluice
