// The training loop with steps that begin before the one before is known to be right: what a person sees is what they
// see with a barrier.
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/world.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/config/job.h"
#include "runtime/data/dataset.h"
#include "runtime/planner/plan.h"
#include "runtime/trainer/trainer.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

struct Outcome {
  absl::Status status;
  TrainReport report;
  std::vector<double> losses;
};

class TrainTest : public ::testing::Test {
 protected:
  TrainTest() {
    std::ofstream out(folder_ + "/text.txt");
    for (int line = 0; line < 200; ++line) out << "line " << line << " is " << line * line << " characters from here\n";
  }

  Outcome Train(std::vector<std::string> overrides, bool post_validation) {
    overrides.push_back(absl::StrCat("schedule.post_validation=", post_validation ? "true" : "false"));
    const auto job = ParseJob(
        "model { family: 'gpt2' layers: 3 channels: 32 heads: 2 positions: 16 vocabulary: 256 tied: false }"
        "data { text: 'text.txt' hold_out { fraction: 0.1 } }"
        "training { steps: 11 batch: 6 micro_batches: 6 sequence: 16 evaluate_every: 3 }"
        "optimizer { learning_rate: 0.01 clip_norm: 2 } layout { pp: 3 threads_per_rank: 1 pin: false }"
        "schedule { name: 'zb_h2' } sample { prompt: 'line' length: 8 }",
        folder_ + "/job.textproto", {.user_directory = folder_, .overrides = overrides});
    CHECK_OK(job.status());
    const auto plan = MakePlan(*job);
    CHECK_OK(plan.status());
    const auto dataset = Dataset::Open(job->data, job->graph.vocabulary, job->training.sequence);
    CHECK_OK(dataset.status());
    const auto world = NewRealWorld();
    Outcome run;
    auto report =
        sluice::Train(world.get(), *plan, *dataset, {.progress = ProgressPrinter::Mode::kQuiet, .losses = &run.losses});
    run.status = report.status();
    if (report.ok()) run.report = *std::move(report);
    return run;
  }

  const std::string folder_ = std::getenv("TEST_TMPDIR");
};

TEST_F(TrainTest, LossesEvaluationsAndSampleAreThoseWithABarrier) {
  const Outcome barrier = Train({}, false), ahead = Train({}, true);
  ASSERT_TRUE(barrier.status.ok()) << barrier.status;
  ASSERT_TRUE(ahead.status.ok()) << ahead.status;
  EXPECT_EQ(ahead.losses, barrier.losses);
  EXPECT_EQ(ahead.losses.size(), 11u);
  EXPECT_EQ(ahead.report.held_out_loss, barrier.report.held_out_loss);
  EXPECT_EQ(ahead.report.sample, barrier.report.sample);
  EXPECT_EQ(ahead.report.steps, 11);
  EXPECT_EQ(barrier.report.revised_steps, 0);
  EXPECT_GT(ahead.report.revised_steps, 0) << "the case is for steps that are clipped ...";
  EXPECT_LT(ahead.report.revised_steps, 11) << "... and steps that are not";
  EXPECT_THAT(ToText(ahead.report), HasSubstr("steps were clipped or skipped, and therefore done again"));
}

TEST_F(TrainTest, MemoryIsWhatWasPlanned) {
  const Outcome run = Train({}, true);
  ASSERT_TRUE(run.status.ok()) << run.status;
  for (const RankMemory& memory : run.report.memory) {
    EXPECT_LE(memory.peak_bytes, memory.planned_bytes);
    EXPECT_GE(memory.peak_bytes, memory.planned_bytes * 95 / 100);
  }
}

TEST_F(TrainTest, StepsThatAreNotFiniteEndTheRunAtTheSameStep) {
  const std::vector<std::string> wild = {"optimizer.learning_rate=1e25", "optimizer.minimum_learning_rate=0",
                                         "training.stop_after_nonfinite=3", "training.evaluate_every=0"};
  const Outcome barrier = Train(wild, false), ahead = Train(wild, true);
  EXPECT_EQ(barrier.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ahead.status, barrier.status) << ahead.status;
}

}  // namespace
}  // namespace sluice
