// The log of a run's numbers: whole lines, and a full disk doesn't stop the run.
#include "runtime/trace/metrics_log.h"

#include <cmath>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/runtime/trace/test_files.h"

namespace sluice {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(MetricsLog, WritesOneObjectALine) {
  const std::string path = TestPath("metrics.jsonl");
  const auto log = MetricsLog::Create(path, [](const absl::Status& status) { FAIL() << status; });
  ASSERT_TRUE(log.ok());
  (*log)->Write({.step = 1, .loss = 5.5, .learning_rate = 0.1, .gradient_norm = 2, .skipped = false});
  // What is on the disk before the log is closed is whole.
  EXPECT_EQ(ReadText(path),
            "{\"step\":1,\"loss\":5.5,\"learning_rate\":0.1,\"gradient_norm\":2.0,\"skipped\":false}\n");
  (*log)->Write({.step = 2, .loss = std::nan(""), .bubble = 0.25, .skipped = true, .more = {{"stash \"peak\"", 3}}});
  std::istringstream lines(ReadText(path));
  std::string line;
  std::getline(lines, line);
  std::getline(lines, line);
  const json second = json::parse(line);
  EXPECT_TRUE(second.at("loss").is_null()) << "JSON has no NaN";
  EXPECT_EQ(second.at("skipped"), true);
  EXPECT_EQ(second.at("bubble"), 0.25);
  EXPECT_EQ(second.at("stash \"peak\""), 3);
  EXPECT_FALSE(second.contains("gradient_norm"));
}

TEST(MetricsLog, WarnsOnceWhenTheDiskIsFullAndGoesOn) {
  std::vector<absl::Status> warnings;
  const auto log = MetricsLog::Create("/dev/full", [&](const absl::Status& status) { warnings.push_back(status); });
  ASSERT_TRUE(log.ok());
  for (int step = 1; step <= 3; ++step) (*log)->Write({.step = step});
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_EQ(warnings[0].code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(warnings[0].message()), AllOf(HasSubstr("/dev/full"), HasSubstr("free space")));
}

TEST(MetricsLog, KeepsWholeLinesOnlyWhenTheDiskRunsFull) {
  const std::string path = TestPath("cut.jsonl");
  int warnings = 0;
  const auto log = MetricsLog::Create(path, [&](const absl::Status&) { ++warnings; });
  ASSERT_TRUE(log.ok());
  {
    FileSizeLimit limit(100);
    for (int step = 1; step <= 9; ++step) (*log)->Write({.step = step, .loss = 1.5});
  }
  EXPECT_EQ(warnings, 1);
  const std::string text = ReadText(path);
  EXPECT_EQ(text.size() % std::string("{\"step\":1,\"loss\":1.5}\n").size(), 0u);
  EXPECT_GT(text.size(), 0u);
}

TEST(MetricsLog, KeepsTheLinesOfTheStepsThatARunGoesOnFrom) {
  const std::string path = TestPath("resumed.jsonl");
  for (const int64_t kept : {0, 2}) {
    const auto log = MetricsLog::Create(path, nullptr, kept);
    ASSERT_TRUE(log.ok());
    for (int64_t step = kept + 1; step <= 4; ++step) (*log)->Write({.step = step, .loss = 1.0 + kept});
    std::ofstream(path, std::ios::app) << "{\"step\":";  // it was killed here
  }
  EXPECT_EQ(ReadText(path),
            "{\"step\":1,\"loss\":1.0}\n{\"step\":2,\"loss\":1.0}\n"
            "{\"step\":3,\"loss\":3.0}\n{\"step\":4,\"loss\":3.0}\n{\"step\":");
}

TEST(MetricsLog, SaysWhyItCannotBeOpened) {
  const auto log = MetricsLog::Create("/nowhere/metrics.jsonl", nullptr);
  EXPECT_EQ(log.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(log.status().message()), HasSubstr("/nowhere/metrics.jsonl"));
}

}  // namespace
}  // namespace sluice
