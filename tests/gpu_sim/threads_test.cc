// Each kind of error in a kernel is reported with its line, under every order of threads; the kernel without it isn't.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/gpu_sim/thread_cases.h"

namespace gpu_sim {
namespace {

constexpr uint64_t kSeeds = 12;

std::string Text(const RunResult& result) {
  return absl::StrJoin(result.reports, "\n",
                       [](std::string* out, const Report& report) { absl::StrAppend(out, report.text); });
}

class Threads : public testing::TestWithParam<ThreadCase> {};

TEST_P(Threads, TheErrorIsReportedWithItsLine) {
  const ThreadCase& param = GetParam();
  const std::string line = param.line == 0 ? "" : absl::StrCat("thread_cases.cu:", param.line);
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const RunResult result = param.run(true, seed);
    const bool found = std::any_of(result.reports.begin(), result.reports.end(), [&](const Report& report) {
      return report.text.find(line) != std::string::npos && report.text.find(param.report) != std::string::npos;
    });
    EXPECT_TRUE(found) << "seed " << seed << ": no '" << param.report << "' at " << line << " in:\n" << Text(result);
  }
}

TEST_P(Threads, WithoutTheErrorNothingIsReported) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const RunResult result = GetParam().run(false, seed);
    EXPECT_TRUE(result.finished);
    EXPECT_EQ(Text(result), "") << "seed " << seed;
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, Threads, testing::ValuesIn(ThreadCases()),
                         [](const auto& info) { return info.param.name; });

TEST(Memory, UseAfterFreeIsReportedWithThePlaces) {
  const RunResult result = RunOnFreedMemory();
  EXPECT_FALSE(result.finished);
  EXPECT_THAT(Text(result), testing::HasSubstr(", freed at "));
}

TEST(Numbers, AreThoseOfEveryOrderOfThreads) {
  std::vector<float> x, sums;
  for (int i = 0; i < 256; ++i) {
    x.push_back(static_cast<float>(i % 7));
    sums.push_back(i % 64 == 0 ? x[i] : sums.back() + x[i]);
  }
  for (uint64_t seed = 0; seed < kSeeds; ++seed) EXPECT_EQ(RunPrefixSums(x, false, seed, nullptr), sums);
}

TEST(Power, NeededBarriersAreMissedAndARedundantOneIsNot) {
  const std::vector<float> x(64, 1.0f);
  BarrierPower needed, redundant;
  EXPECT_EQ(RunPrefixSums(x, false, 1, &needed).size(), x.size());
  EXPECT_EQ(needed.barriers(), 2);
  EXPECT_THAT(needed.never_missed(), testing::IsEmpty());
  EXPECT_EQ(RunPrefixSums(x, true, 1, &redundant).size(), x.size());
  EXPECT_EQ(redundant.barriers(), 3);
  EXPECT_THAT(redundant.never_missed(), testing::ElementsAre(testing::HasSubstr("thread_cases.cu")));
}

// Longer than the shadow's time goes: the earlier block's access still counts.
TEST(Time, IsShortenedWithoutLosingARace) {
  const RunResult result = RunLongBlocks(600000);
  EXPECT_THAT(Text(result), testing::HasSubstr("nothing orders blocks"));
  EXPECT_EQ(result.reports.size(), 1u);
}

TEST(Stack, ThatIsFullIsNamed) { EXPECT_DEATH(RunDeepThread(), "a CUDA thread used more than 65536 bytes of stack"); }

}  // namespace
}  // namespace gpu_sim
