// Numbers don't depend on the cut: losses of all steps, gradient norms and final weights are bit-equal for any number of stages, any
// schedule and any number of threads. Here a sample that covers every pair of settings at least once; all of them:
//   bazel run //tests/equivalence:equivalence_test -- --all
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "scheduler/csv.h"
#include "scheduler/generators.h"
#include "scheduler/lowering.h"
#include "tests/equivalence/run_job.h"
#include "tests/equivalence/settings.h"

namespace sluice {
namespace {

bool run_all = false;

class Equivalence : public ::testing::Test {
 protected:
  Equivalence() : folder_(std::string(std::getenv("TEST_TMPDIR") ? std::getenv("TEST_TMPDIR") : "/tmp") + "/eq_XXXXXX") {
    EXPECT_NE(mkdtemp(folder_.data()), nullptr);
    WriteTexts(folder_);
  }

  // One device, one thread, with the same micro-batches and groups.
  const JobNumbers& Reference(Settings s) {
    s = OneDevice(s);
    auto [entry, is_new] = references_.try_emplace(Name(s));
    if (is_new) {
      auto numbers = RunJob(JobText(s), folder_);
      EXPECT_TRUE(numbers.ok()) << Name(s) << ": " << numbers.status();
      if (numbers.ok()) entry->second = *std::move(numbers);
      if (s.steps >= 20 && s.learning_rate < 1) {
        EXPECT_LT(entry->second.losses.back(), entry->second.losses.front()) << Name(s) << " doesn't learn";
      }
    }
    return entry->second;
  }

  void Check(const Settings& s) {
    const auto numbers = RunJob(JobText(s), folder_, {.messages = s.messages});
    ASSERT_TRUE(numbers.ok()) << Name(s) << ": " << numbers.status();
    EXPECT_EQ(Difference(Reference(s), *numbers), "") << Name(s);
  }

  std::string folder_;
  std::map<std::string, JobNumbers> references_;
};

TEST_F(Equivalence, AnyCutScheduleAndThreadsGiveTheBitsOfOneDevice) {
  const Settings sample[] = {
      {"gpt2", "f32", "none", 5, 1, 2, "1f1b", 1},     {"gpt2", "f32", "none", 5, 1, 3, "gpipe", 2},
      {"gpt2", "f32", "full", 5, 1, 4, "1f1b", 3},     {"gpt2", "f32", "selective", 12, 1, 6, "1f1b", 1},
      {"gpt2", "f32", "none", 12, 3, 2, "gpipe", 1},   {"gpt2", "f32", "none", 12, 3, 4, "1f1b", 1},
      {"gpt2", "f32", "none", 1, 1, 3, "1f1b", 1},     {"gpt2", "f32", "none", 2, 1, 6, "gpipe", 1},
      {"gpt2", "f32", "none", 2, 1, 1, "1f1b", 3},     {"gpt2", "bf16", "none", 5, 1, 3, "1f1b", 2},
      {"gpt2", "bf16", "selective", 2, 1, 2, "gpipe", 1}, {"gpt2", "bf16", "full", 12, 1, 4, "1f1b", 1},
      {"llama", "f32", "none", 5, 1, 2, "gpipe", 3},   {"llama", "f32", "selective", 2, 1, 4, "1f1b", 1},
      {"llama", "f32", "full", 12, 2, 3, "1f1b", 2},   {"llama", "f32", "none", 1, 1, 6, "1f1b", 1},
      {"llama", "bf16", "none", 5, 5, 6, "gpipe", 1},  {"llama", "bf16", "full", 1, 1, 2, "1f1b", 3},
      {"llama", "bf16", "selective", 12, 1, 4, "gpipe", 1},
  };
  for (const Settings& settings : sample) Check(settings);
}

// Chunks, split backward passes, V placements and waves: every generator that trains.
TEST_F(Equivalence, EverySchedule) {
  const Settings sample[] = {
      {"gpt2", "f32", "none", 12, 1, 3, "eager_1f1b", 1, 1},     {"gpt2", "f32", "none", 12, 1, 3, "interleaved_1f1b", 1, 2},
      {"gpt2", "f32", "selective", 12, 1, 2, "looped_bfs", 1, 3}, {"gpt2", "f32", "none", 12, 3, 4, "zb_h1", 1, 1},
      {"gpt2", "f32", "full", 12, 1, 3, "zb_h2", 1, 1},          {"gpt2", "f32", "selective", 12, 1, 3, "zb_auto", 1, 1},
      {"llama", "f32", "none", 12, 1, 2, "interleaved_zb", 1, 2}, {"gpt2", "bf16", "selective", 12, 1, 3, "zb_v", 1, 2},
      {"llama", "f32", "full", 12, 1, 2, "dual_pipe_v", 2, 2},    {"llama", "bf16", "none", 12, 3, 2, "hanayo", 1, 2},
      {"gpt2", "f32", "none", 12, 1, 3, "v_half", 1, 2},          {"llama", "f32", "selective", 12, 1, 3, "v_min", 1, 2},
  };
  std::set<std::string> seen = {"gpipe", "1f1b", "dual_pipe", "chimera", "forward_only"};
  for (const Settings& settings : sample) {
    seen.insert(settings.schedule);
    Check(settings);
  }
  for (const Generator& generator : Generators()) EXPECT_TRUE(seen.contains(generator.name)) << generator.name;
}

// Without a barrier at the end of a step: whatever a rank guesses about the norm, and however often it is wrong.
TEST_F(Equivalence, PostValidation) {
  const Settings untied{.micro_batches = 6, .tied = false, .post_validation = true};
  const auto with = [](Settings s, int pp, const char* schedule, double clip, int chunks = 1) {
    s.pp = pp;
    s.schedule = schedule;
    s.clip = clip;
    s.chunks = chunks;
    return s;
  };
  constexpr double kNever = 1000, kOften = 2.5, kAlways = 0.01;
  std::vector<Settings> sample = {
      with(untied, 2, "zb_h1", kOften),   with(untied, 3, "zb_h2", kNever),          with(untied, 4, "zb_h2", kOften),
      with(untied, 3, "zb_auto", kOften), with(untied, 2, "1f1b", kAlways),          with(untied, 4, "1f1b", kOften),
      with(untied, 2, "zb_h2", kAlways),  with(untied, 3, "interleaved_1f1b", kOften, 2)};
  Settings tied = untied;
  tied.tied = true;
  sample.push_back(with(tied, 2, "zb_v", kOften, 2));
  sample.push_back(with(tied, 3, "zb_v", kNever, 2));
  Settings wild = untied;  // soon nothing is finite
  wild.learning_rate = 1e20;
  sample.push_back(with(wild, 3, "zb_h2", kOften));
  for (const Settings& settings : sample) Check(settings);
  // Clipping in some steps and not in others is what the case is for.
  const std::vector<float>& norms = Reference(sample[0]).norms;
  const auto clipped = std::count_if(norms.begin(), norms.end(), [](float norm) { return norm > kOften; });
  EXPECT_GT(clipped, 0) << "of " << norms.size();
  if (kSteps >= 20) {
    EXPECT_LT(clipped, kSteps);
  }
  EXPECT_FALSE(std::isfinite(Reference(sample.back()).norms.back())) << "with a rate of 1e20";
}

// Each copy works on one half of the micro-batches, and both get the same gradients, weights and norms.
TEST_F(Equivalence, TwoCopiesOfTheModel) {
  const Settings sample[] = {
      {"gpt2", "f32", "none", 8, 2, 2, "dual_pipe", 1, 1},      {"gpt2", "f32", "selective", 12, 4, 4, "dual_pipe", 1, 1, false},
      {"llama", "f32", "none", 12, 2, 4, "dual_pipe", 1, 1},    {"llama", "f32", "full", 8, 2, 4, "chimera", 2, 1, false},
      {"gpt2", "f32", "none", 8, 4, 4, "chimera", 1, 1},        {"llama", "bf16", "none", 6, 2, 2, "chimera", 1, 1},
  };
  for (const Settings& settings : sample) Check(settings);
}

// Each replica works on its share of the micro-batches; all get the gradients, weights and norms of one device.
TEST_F(Equivalence, Replicas) {
  const auto with = [](int dp, Settings s) {
    s.dp = dp;
    return s;
  };
  const Settings sample[] = {
      with(2, {"gpt2", "f32", "none", 8, 2, 1, "1f1b", 1}),
      with(2, {"gpt2", "f32", "selective", 8, 4, 2, "1f1b", 1}),
      with(3, {"gpt2", "bf16", "none", 6, 3, 2, "gpipe", 1}),
      with(4, {"llama", "f32", "none", 8, 8, 1, "1f1b", 2}),
      with(2, {"llama", "f32", "full", 8, 2, 3, "zb_h1", 1}),
      with(2, {"gpt2", "f32", "none", 8, 2, 2, "zb_v", 1, 2}),
      with(2, {"gpt2", "f32", "none", 12, 2, 2, "interleaved_1f1b", 1, 2, false}),
      with(3, {"llama", "bf16", "none", 12, 6, 2, "dual_pipe", 1, 1}),
      with(2, {"gpt2", "f32", "none", 8, 4, 2, "chimera", 1, 1, false}),
  };
  for (const Settings& settings : sample) Check(settings);
}

// Shards of each layer: for the same number of them the bits of one pipeline rank, whatever the cut, the schedule and the
// replicas; against one device the sums of the shards are in another order.
TEST_F(Equivalence, Shards) {
  const auto with = [](int tp, bool slices, int dp, Settings s) {
    s.tp = tp;
    s.sequence_parallel = slices;
    s.dp = dp;
    return s;
  };
  const Settings sample[] = {
      with(2, false, 1, {"gpt2", "f32", "none", 4, 2, 2, "1f1b", 1}),
      with(2, false, 2, {"gpt2", "f32", "selective", 4, 2, 1, "1f1b", 2}),
      with(4, false, 1, {"llama", "f32", "none", 4, 1, 2, "zb_h1", 1}),
      with(4, true, 2, {"llama", "f32", "full", 4, 2, 2, "1f1b", 1}),
      // Shards with more rows of the vocabulary than others.
      with(4, true, 2, {.micro_batches = 4, .groups = 2, .pp = 2, .vocabulary = 259}),
      with(2, true, 2, {.family = "llama", .micro_batches = 4, .groups = 2, .tied = false, .zero1 = true, .vocabulary = 257}),
      with(2, true, 1, {"gpt2", "f32", "selective", 4, 1, 2, "interleaved_1f1b", 1, 2}),
      with(2, true, 1, {"gpt2", "bf16", "none", 4, 2, 2, "dual_pipe", 1, 1, false}),
      with(2, false, 1, {.micro_batches = 6, .pp = 2, .schedule = "zb_h2", .tied = false, .post_validation = true, .clip = 2.5}),
  };
  for (const Settings& settings : sample) {
    Check(settings);
    Settings unsplit = settings;
    unsplit.tp = 1;
    unsplit.sequence_parallel = false;
    const JobNumbers &split = Reference(settings), &whole = Reference(unsplit);
    ASSERT_EQ(split.losses.size(), whole.losses.size());
    // Differences of 1e-7 grow from step to step; bf16 begins with 4e-3.
    const float tolerance = settings.precision == "f32" ? 1e-3f : 2e-2f;
    for (size_t i = 0; i < whole.losses.size(); ++i) {
      EXPECT_NEAR(split.losses[i], whole.losses[i], tolerance * whole.losses[i]) << Name(settings) << " loss " << i;
    }
    for (size_t i = 0; i < whole.held_out.size(); ++i) {
      EXPECT_NEAR(split.held_out[i], whole.held_out[i], tolerance * whole.held_out[i]) << Name(settings);
    }
    EXPECT_NEAR(split.norms[0], whole.norms[0], (settings.precision == "f32" ? 1e-5f : 2e-2f) * whole.norms[0]);
  }
}

// ... and so they do when each updates its slice of the parameters alone. With 160 channels a tensor has several norm blocks.
TEST_F(Equivalence, ReplicasThatShareTheOptimizer) {
  const auto with = [](int dp, Settings s, int channels = 48) {
    s.dp = dp;
    s.zero1 = true;
    s.channels = channels;
    s.steps = std::min(kSteps, 6);
    return s;
  };
  std::vector<Settings> sample = {
      with(2, {"gpt2", "f32", "none", 8, 2, 1, "1f1b", 1}, 160),
      with(3, {"gpt2", "f32", "none", 6, 3, 2, "1f1b", 1}, 160),
      with(4, {"llama", "bf16", "none", 8, 4, 2, "zb_h1", 1}, 160),
      with(2, {"gpt2", "bf16", "none", 8, 4, 2, "zb_v", 1, 2}),
      with(2, {"llama", "f32", "full", 8, 2, 2, "dual_pipe_v", 1, 2}),
      with(2, {"gpt2", "f32", "none", 8, 4, 2, "chimera", 1, 1}, 160),
      with(3, {"llama", "f32", "none", 12, 6, 2, "dual_pipe", 1, 1, false}),
  };
  Settings shards = with(2, {"llama", "f32", "none", 4, 2, 2, "1f1b", 1}, 160);
  shards.tp = 2;
  shards.sequence_parallel = true;
  sample.push_back(shards);
  Settings whole = sample[5];
  whole.zero1 = false;
  sample.push_back(whole);
  Settings wild = sample[0];  // soon nothing is finite, and all skip alike
  wild.learning_rate = 1e20;
  sample.push_back(wild);
  for (const Settings& settings : sample) Check(settings);
  EXPECT_FALSE(std::isfinite(Reference(wild).norms.back())) << "with a rate of 1e20";
}

// As on GPUs: slots stay where they are, and what is issued waits for messages on the device.
TEST_F(Equivalence, MessagesThatAreCopiedBetweenDevices) {
  std::vector<Settings> sample = {
      {"gpt2", "f32", "none", 5, 1, 3, "1f1b", 1},          {"gpt2", "bf16", "full", 5, 1, 2, "gpipe", 2},
      {"gpt2", "f32", "none", 12, 1, 3, "interleaved_1f1b", 1, 2}, {"llama", "f32", "selective", 12, 1, 3, "zb_v", 1, 2},
      {"gpt2", "f32", "none", 8, 2, 2, "dual_pipe", 1},     {"llama", "f32", "none", 4, 2, 2, "1f1b", 1},
      {.micro_batches = 6, .pp = 3, .schedule = "zb_h2", .tied = false, .post_validation = true, .clip = 2.5},
  };
  sample[5].dp = 2;
  sample[5].tp = 2;
  sample[5].sequence_parallel = true;
  sample[5].zero1 = true;
  for (Settings& settings : sample) {
    settings.messages = Messages::kCopied;
    Check(settings);
  }
}

// What was written as text is read again and trains the same, without transfers and with those that lowering gave it.
TEST_F(Equivalence, EverySchedulesOwnFile) {
  for (const Generator& generator : Generators()) {
    for (const int chunks : {1, 2}) {
      const auto schedule = generator.generate({.ranks = 2, .chunks = chunks, .micro_batches = 4});
      if (!schedule.ok() || schedule->pass != PassKind::kTraining) continue;
      if (schedule->placement.stages() != 2 * chunks) continue;
      Settings settings{.micro_batches = 4, .groups = schedule->placement.copies(), .pp = 2, .chunks = chunks, .steps = std::min(kSteps, 4)};
      const auto program = Lower(*schedule);
      ASSERT_TRUE(program.ok()) << program.status();
      for (const auto& [name, ranks] : {std::pair("compute", schedule->ranks), {"lowered", program->ranks}}) {
        settings.file = absl::StrCat(generator.name, chunks, name, ".csv");
        std::ofstream(folder_ + "/" + settings.file) << WriteCsv(ranks);
        Check(settings);
      }
    }
  }
}

// As someone might write it by hand, in PyTorch's letters, with idle cells and sharding that isn't there.
TEST_F(Equivalence, AScheduleWrittenByHand) {
  Settings settings{.micro_batches = 4, .pp = 2};
  settings.file = "hand.csv";
  std::ofstream(folder_ + "/hand.csv")
      << "\xef\xbb\xbf" "0UNSHARD,0F0,0F1,0F2,,,0B0,0F3,0B1,0B2,0B3,0REDUCE_GRAD,0RESHARD\r\n"
      << ",1UNSHARD,1F0,1F1,1I0,(1F2;1B1)OVERLAP_F_B,1F3,1B2,1W0,1B3,1REDUCE_GRAD,1RESHARD\r\n";
  const auto numbers = RunJob(JobText(settings), folder_);
  // Rank 1 adds micro-batches 1 and 2 before 0: it trains, but its sums are others.
  ASSERT_TRUE(numbers.ok()) << numbers.status();
  EXPECT_NE(Difference(Reference(settings), *numbers), "");
  EXPECT_NEAR(numbers->norms[0], Reference(settings).norms[0], 1e-5 * numbers->norms[0]) << "the same numbers added";
  EXPECT_NEAR(numbers->losses.back(), Reference(settings).losses.back(), 1e-2 * Reference(settings).losses.back());
  std::ofstream(folder_ + "/hand.csv")
      << "0UNSHARD,0F0,0F1,0F2,,,0B0,0F3,0B1,0B2,0B3,0REDUCE_GRAD,0RESHARD\r\n"
      << ",1UNSHARD,1F0,1F1,1I0,1W0,(1F2;1B1)OVERLAP_F_B,1F3,1B2,1B3,1REDUCE_GRAD,1RESHARD,\r\n";
  Check(settings);
}

TEST_F(Equivalence, TheWholeMatrix) {
  if (!run_all) GTEST_SKIP() << "the whole matrix takes an hour; run it with --all";
  for (const char* family : {"gpt2", "llama"}) {
    for (const char* precision : {"f32", "bf16"}) {
      for (int m : {1, 2, 5, 12}) {
        for (const char* recompute : {"none", "selective", "full"}) {
          for (int pp : {1, 2, 3, 4, 6}) {
            for (const char* schedule : {"gpipe", "1f1b"}) {
              for (int threads : {1, 2, 3}) Check({family, precision, recompute, m, 1, pp, schedule, threads});
            }
          }
        }
      }
    }
  }
}

TEST_F(Equivalence, TheWholeMatrixOfReplicas) {
  if (!run_all) GTEST_SKIP() << "the whole matrix takes minutes; run it with --all";
  const std::pair<const char*, int> schedules[] = {{"1f1b", 1},    {"zb_h1", 1},     {"interleaved_1f1b", 2}, {"zb_v", 2},
                                                   {"chimera", 1}, {"dual_pipe", 1}, {"dual_pipe_v", 2}};
  for (const char* family : {"gpt2", "llama"}) {
    for (const char* precision : {"f32", "bf16"}) {
      for (const bool tied : {true, false}) {
        for (const auto& [schedule, chunks] : schedules) {
          for (int pp : {1, 2}) {
            const bool copies = schedule[0] == 'c' || std::strcmp(schedule, "dual_pipe") == 0;
            if (copies && pp == 1) continue;
            for (int dp : {1, 2, 3, 4}) {
              for (const bool zero1 : {false, true}) {
                if (zero1 && dp == 1) continue;
                Settings s{family, precision, "none", 24, 24, pp, schedule, 1, chunks, tied};
                s.steps = 3;
                s.dp = dp;
                s.zero1 = zero1;
                s.channels = 160;
                Check(s);
              }
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) sluice::run_all |= std::strcmp(argv[i], "--all") == 0;
  return RUN_ALL_TESTS();
}
