// Each kind of error in a kernel is reported with its line, under every order of threads; the kernel without it isn't.
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
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

}  // namespace
}  // namespace gpu_sim
