// A run that goes on from what another one has saved has the numbers of one that was never interrupted, bit for bit,
// whatever the layouts of the two are.
#include <cmath>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/equivalence/run_job.h"
#include "tests/equivalence/settings.h"

namespace sluice {
namespace {

constexpr int64_t kRunSteps = kSteps < 7 ? kSteps : 7;

class Resume : public ::testing::Test {
 protected:
  Resume() : folder_(std::string(std::getenv("TEST_TMPDIR")) + "/resume_XXXXXX") {
    EXPECT_NE(mkdtemp(folder_.data()), nullptr);
    WriteTexts(folder_);
  }

  JobNumbers Run(Settings s, const RunOptions& how = {}) {
    s.steps = kRunSteps;
    auto numbers = RunJob(JobText(s), folder_, {.messages = s.messages, .saved = how.saved, .resumed = how.resumed});
    EXPECT_TRUE(numbers.ok()) << Name(s) << ": " << numbers.status();
    return numbers.ok() ? *std::move(numbers) : JobNumbers{};
  }

  // Of one device, never interrupted.
  const JobNumbers& Uninterrupted(const Settings& settings) {
    const Settings one = OneDevice(settings);
    const auto [entry, is_new] = references_.try_emplace(Name(one));
    if (is_new) entry->second = Run(one);
    return entry->second;
  }

  // Saving disturbs nobody, and who goes on has the rest of the numbers.
  void Check(const Settings& before, const Settings& after, int64_t step) {
    SavedRun saved;
    saved.step = step;
    EXPECT_EQ(Difference(Uninterrupted(before), Run(before, {.saved = &saved})), "") << Name(before) << ", saved";
    EXPECT_EQ(Difference(After(step, Uninterrupted(after)), Run(after, {.resumed = &saved})), "")
        << Name(before) << ", after step " << step << " " << Name(after);
  }

  std::string folder_;
  std::map<std::string, JobNumbers> references_;
};

TEST_F(Resume, AtAnyStep) {
  const Settings settings{.micro_batches = 4, .pp = 2};
  for (int64_t step = 1; step < kRunSteps; ++step) Check(settings, settings, step);
}

TEST_F(Resume, InAnyLayoutWithTheSameGroups) {
  const Settings one{"gpt2", "f32", "none", 8, 4, 1, "1f1b", 1};
  Settings deep{"gpt2", "f32", "none", 8, 4, 3, "zb_h1", 2};
  Settings chunks{"gpt2", "f32", "full", 8, 4, 2, "interleaved_1f1b", 1, 2};
  Settings copies{"gpt2", "f32", "none", 8, 4, 2, "chimera", 1};
  Settings replicas{"gpt2", "f32", "selective", 8, 4, 2, "1f1b", 1};
  replicas.dp = 4;
  Settings shared = replicas;
  shared.dp = 2;
  shared.zero1 = true;
  Settings shared_copies = copies;
  shared_copies.dp = 2;
  shared_copies.zero1 = true;
  const Settings layouts[] = {one, deep, chunks, copies, replicas, shared, shared_copies, one};
  int64_t step = 0;
  for (size_t i = 0; i + 1 < std::size(layouts); ++i) {
    Check(layouts[i], layouts[i + 1], 1 + step++ % (kRunSteps - 1));
    if (HasFailure()) return;
  }
  Check(shared, one, 1);
  Check(shared, shared_copies, 1);
}

// With 160 channels a tensor has several norm blocks, so that replicas share it.
TEST_F(Resume, InOtherFamiliesAndPrecisions) {
  for (const char* family : {"gpt2", "llama"}) {
    for (const char* precision : {"f32", "bf16"}) {
      Settings a{.family = family, .precision = precision, .micro_batches = 4, .groups = 2, .pp = 2, .channels = 160};
      a.tied = precision[0] == 'f';
      Settings b = a;
      b.dp = 2;
      b.zero1 = true;
      b.pp = 1;
      Check(a, b, 1);
      Check(b, a, 1);
    }
  }
}

// A guess is settled before anything is saved.
TEST_F(Resume, WithPostValidation) {
  Settings a{.micro_batches = 6, .pp = 3, .schedule = "zb_h2", .tied = false, .post_validation = true, .clip = 2.5};
  Settings b = a;
  b.pp = 2;
  b.schedule = "1f1b";
  for (int64_t step = 1; step < kRunSteps; ++step) Check(a, a, step);
  Check(a, b, 1);
  b.post_validation = false;
  Check(b, a, 1);
}

// Skipped steps are no updates.
TEST_F(Resume, AfterStepsThatWereSkipped) {
  if (kRunSteps < 7) GTEST_SKIP() << "needs more steps than a sanitizer has time for";
  Settings wild{.micro_batches = 4, .learning_rate = 1e20};
  EXPECT_FALSE(std::isfinite(Uninterrupted(wild).norms[4])) << "with a rate of 1e20";
  SavedRun saved;
  saved.step = 5;
  Run(wild, {.saved = &saved});
  EXPECT_LT(saved.updates, saved.step);
  Check(wild, wild, 5);
}

// Shards: the same bits with as many, else sums in another order.
TEST_F(Resume, WithShards) {
  Settings split{.micro_batches = 4, .groups = 2, .pp = 2, .tp = 2, .vocabulary = 259};
  Settings whole = split;
  whole.tp = 1;
  Settings slices{.family = "llama",
                  .micro_batches = 4,
                  .groups = 2,
                  .pp = 1,
                  .dp = 2,
                  .zero1 = true,
                  .tp = 4,
                  .sequence_parallel = true};
  Check(split, split, 1);
  Check(slices, slices, 1);
  SavedRun saved;
  saved.step = 1;
  Run(whole, {.saved = &saved});
  const JobNumbers expected = After(1, Uninterrupted(whole)), got = Run(split, {.resumed = &saved});
  ASSERT_EQ(got.losses.size(), expected.losses.size());
  for (size_t i = 0; i < got.losses.size(); ++i) {
    EXPECT_NEAR(got.losses[i], expected.losses[i], 1e-3 * expected.losses[i]) << i;  // as in equivalence_test
  }
}

TEST_F(Resume, WhereMessagesAreCopied) {
  Settings settings{.micro_batches = 4, .groups = 2, .pp = 2, .dp = 2, .zero1 = true, .messages = Messages::kCopied};
  Check(settings, settings, 1);
}

}  // namespace
}  // namespace sluice
