// A tiny GPT with real stages and the CPU device, in virtual time: whatever order the seed chooses, and wherever it
// holds tasks up, losses and norms are the bits of one rank.
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "runtime/config/job.h"
#include "runtime/planner/plan.h"
#include "runtime/trainer/pipeline.h"
#include "tests/sim/sim_world.h"

namespace sluice {
namespace {

constexpr int kSteps = 2, kMicroBatches = 4, kSequence = 8;

std::string Folder() {
  const char* folder = std::getenv("TEST_TMPDIR");
  const std::string path = folder == nullptr ? "/tmp" : folder;
  std::ofstream(path + "/text") << std::string(4000, 'x');
  return path;
}

JobConfig Job(int ranks, const std::string& schedule) {
  static const std::string folder = Folder();
  const auto job = ParseJob(
      absl::StrCat("model { family: 'gpt2' layers: 2 channels: 16 heads: 2 positions: ", kSequence,
                   " dropout: 0.1 tied: true vocabulary: 256 }\ndata { text: 'text' }\n", "training { steps: ", kSteps,
                   " batch: ", kMicroBatches, " micro_batches: ", kMicroBatches, " sequence: ", kSequence,
                   " }\noptimizer { learning_rate: 0.01 clip_norm: 0.5 }\n", "layout { pp: ", ranks,
                   " threads_per_rank: 1 pin: false }\nschedule { name: '", schedule, "' }\n"),
      folder + "/job.textproto", {.user_directory = folder});
  EXPECT_TRUE(job.ok()) << job.status();
  return *job;
}

// The loss sums of all steps, and their norms.
std::vector<float> Train(World* world, const JobConfig& job) {
  const auto plan = MakePlan(job);
  EXPECT_TRUE(plan.ok()) << plan.status();
  auto pipeline = Pipeline::Create(world, *plan, {});
  EXPECT_TRUE(pipeline.ok()) << pipeline.status();
  std::vector<float> numbers;
  std::vector<int32_t> tokens(kMicroBatches * kSequence), targets(tokens.size()), positions(kSequence),
      samples(kMicroBatches);
  for (int i = 0; i < kSequence; ++i) positions[i] = i;
  for (int i = 0; i < kMicroBatches; ++i) samples[i] = i;
  for (int step = 0; step < kSteps; ++step) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = static_cast<int32_t>((31 * i + 7 * step) % 256);
      targets[i] = static_cast<int32_t>((31 * i + 7 * step + 31) % 256);
    }
    std::vector<MicroBatchInfo> infos;
    for (int i = 0; i < kMicroBatches; ++i) {
      infos.push_back({.index = MicroBatch(i),
                       .rows = 1,
                       .sequence = kSequence,
                       .tokens = absl::MakeSpan(tokens).subspan(i * kSequence, kSequence),
                       .targets = absl::MakeSpan(targets).subspan(i * kSequence, kSequence),
                       .positions = positions,
                       .samples = absl::MakeSpan(samples).subspan(i, 1),
                       .step = step,
                       .loss_scale = 1.0f / static_cast<float>(tokens.size()),
                       .accumulate = i == 0 ? Accumulate::kOverwrite : Accumulate::kAdd});
    }
    (*pipeline)->StartStep({.micro_batches = infos, .learning_rate = 0.01f, .update = step + 1});
    const auto outcome = (*pipeline)->FinishStep();
    EXPECT_TRUE(outcome.ok()) << outcome.status();
    if (!outcome.ok()) break;
    numbers.insert(numbers.end(), outcome->loss_sums.begin(), outcome->loss_sums.end());
    numbers.push_back(outcome->control.norm);
  }
  return numbers;
}

TEST(GptInVirtualTimeTest, AnyOrderOfTasksGivesTheBitsOfOneRank) {
  std::vector<float> reference;
  {
    SimWorld world({.seed = 1});
    reference = Train(&world, Job(1, "gpipe"));
  }
  ASSERT_EQ(reference.size(), static_cast<size_t>(kSteps * (kMicroBatches + 1)));
  EXPECT_GT(reference[0], 0);
  for (int ranks = 2; ranks <= 4; ++ranks) {
    for (const char* schedule : {"gpipe", "1f1b"}) {
      for (uint64_t seed = 1; seed <= 5; ++seed) {
        SCOPED_TRACE(absl::StrCat(schedule, " p=", ranks, " seed ", seed));
        SimWorld world({.seed = seed, .stall_one_in = 9, .stall_max = kMillisecond});
        EXPECT_EQ(Train(&world, Job(ranks, schedule)), reference);
      }
    }
  }
}

}  // namespace
}  // namespace sluice
