// `sluice visualize` as it is typed: what it writes, and what it says when it can't.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/trace/chrome_trace.h"
#include "tests/runtime/trace/test_timelines.h"
#include "tests/tools/verb_test.h"

namespace sluice {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

using Visualize = VerbTest<tools::AddVisualize>;

TEST_F(Visualize, PrintsAScheduleAsText) {
  const std::string text = Printed({"1f1b", "--ranks", "2", "--micro-batches", "3", "--width", "60"});
  EXPECT_THAT(text, HasSubstr("1f1b, simulated: 2 ranks, 3 micro-batches, bubble 25.0 % of the makespan of 12 ms"));
  EXPECT_THAT(text, AllOf(HasSubstr("rank 1"), HasSubstr("B0=")));
}

TEST_F(Visualize, CostsAreMillisecondsAndBackwardIsTheSumUnlessGiven) {
  EXPECT_THAT(Printed({"gpipe", "--ranks", "1", "--micro-batches", "1", "--forward", "1.5", "--input-gradient", "2",
                       "--weight-gradient", "0.25"}),
              HasSubstr("makespan of 3.75 ms"));
  EXPECT_THAT(Printed({"gpipe", "--ranks", "1", "--micro-batches", "1", "--forward", "1.5", "--backward", "5"}),
              HasSubstr("makespan of 6.5 ms"));
}

TEST_F(Visualize, WritesEveryFormatByTheEndingOfTheFile) {
  for (const auto& [name, opening] : {std::pair("a.svg", "<svg"),
                                      {"a.html", "<!DOCTYPE html>"},
                                      {"a.txt", "1f1b"},
                                      {"a.json", "{\"displayTimeUnit\""},
                                      {"a.pftrace", "\n"}}) {
    EXPECT_THAT(Printed({"1f1b", "-o", name}), HasSubstr(name));
    EXPECT_THAT(Text(name), StartsWith(opening));
  }
  EXPECT_TRUE(Call({"1f1b", "-o", "picture", "--format", "svg"}).ok());
  EXPECT_THAT(Text("picture"), StartsWith("<svg"));
  EXPECT_THAT(Printed({"1f1b", "--format", "svg"}), StartsWith("<svg")) << "without a file: to standard output";
}

TEST_F(Visualize, WritesPngWhereItCan) {
  if (std::system("command -v rsvg-convert >/dev/null 2>&1") != 0) {
    EXPECT_THAT(Refusal({"1f1b", "-o", "a.png"}), AllOf(HasSubstr("rsvg-convert"), HasSubstr("librsvg2-bin")));
    EXPECT_FALSE(std::filesystem::exists(folder_ + "/a.png"));
    GTEST_SKIP() << "no rsvg-convert on this machine (Debian's package librsvg2-bin): no PNG was drawn";
  }
  for (const auto& [ranks, micro_batches] : {std::pair("4", "8"), {"64", "256"}}) {
    EXPECT_THAT(Printed({"1f1b", "--ranks", ranks, "--micro-batches", micro_batches, "--width", "900", "-o", "a.png"}),
                HasSubstr("a.png"));
    const std::string png = Text("a.png");
    ASSERT_GT(png.size(), 2000u);
    EXPECT_EQ(png.substr(0, 8), "\x89PNG\r\n\x1a\n");
    const auto byte = [&](size_t i) { return static_cast<unsigned char>(png[i]); };
    EXPECT_EQ(byte(18) * 256 + byte(19), 900) << "the width that was asked for";
  }
}

TEST_F(Visualize, ADeadlockIsDrawnAndRefused) {
  std::ofstream(folder_ + "/late.csv") << LateReceivesCsv("1f1b", 4, 8);
  for (const char* name : {"late.svg", "late.html"}) {
    const std::string refusal = Refusal({"late.csv", "-o", name});
    EXPECT_THAT(refusal, AllOf(HasSubstr("deadlock"), HasSubstr("wait in a circle"), HasSubstr(name)));
    EXPECT_THAT(Text(name), AllOf(HasSubstr("class=\"arrow\""), HasSubstr("a deadlock when all communication")));
  }
  EXPECT_THAT(Refusal({"late.csv", "-o", "late.json"}), HasSubstr("wait in a circle"));
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/late.json"));
  EXPECT_THAT(Refusal({"late.csv"}), HasSubstr("wait in a circle"));
}

TEST_F(Visualize, ASimulatedTraceReadBackGivesTheSamePicture) {
  ASSERT_TRUE(Call({"1f1b", "--ranks", "3", "--transfer", "0.1", "-o", "t.json"}).ok());
  EXPECT_EQ(Printed({"t.json"}), Printed({"1f1b", "--ranks", "3", "--transfer", "0.1"}));
}

TEST_F(Visualize, DrawsTheStepAskedForOrTheLast) {
  ASSERT_TRUE(WriteChromeTrace(folder_ + "/run.json", {{10, 0, SimulatedTimeline({.schedule = "gpipe"})},
                                                       {11, 1'000'000'000, SimulatedTimeline({.schedule = "1f1b"})}})
                  .ok());
  EXPECT_THAT(Printed({"run.json"}), StartsWith("1f1b"));
  EXPECT_THAT(Printed({"run.json", "--step", "10"}), StartsWith("gpipe"));
  EXPECT_THAT(Refusal({"run.json", "--step", "12"}), AllOf(HasSubstr("no step 12"), HasSubstr("10, 11")));
  ASSERT_TRUE(Call({"run.json", "--step", "11", "-o", "one.json"}).ok());
  const auto one = ReadChromeTrace(folder_ + "/one.json");
  ASSERT_TRUE(one.ok()) << one.status();
  ASSERT_EQ(one->size(), 1u);
  EXPECT_EQ(one->front().step, 11);
}

TEST_F(Visualize, LaysASecondTimelineBelowTheFirst) {
  const std::string text = Printed({"1f1b", "--against", "gpipe"});
  EXPECT_THAT(text, AllOf(HasSubstr("1f1b, simulated"), HasSubstr("gpipe, simulated")));
  EXPECT_THAT(Refusal({"1f1b", "--against", "gpipe", "-o", "two.json"}), HasSubstr("--against"));
}

TEST_F(Visualize, DrawsAScheduleFile) {
  std::ofstream(folder_ + "/mine.csv") << "0F0,0F1,,0B0,0B1\n1F0,1B0,1F1,1B1\n";
  EXPECT_THAT(Printed({"mine.csv", "--forward", "2"}),
              StartsWith("mine.csv, simulated: 2 ranks, 2 micro-batches, bubble 33.3 % of the makespan of 12 ms"));
  std::ofstream(folder_ + "/bad.csv") << "0F0,0B0\n1F0,1X0\n";
  EXPECT_THAT(Refusal({"bad.csv"}), AllOf(StartsWith("bad.csv:2:6: expected F, B, I, W"), HasSubstr("found 'X'")));
  std::ofstream(folder_ + "/stuck.csv") << "0B0,0F0\n";
  EXPECT_THAT(Refusal({"stuck.csv"}), HasSubstr("0B0"));
  EXPECT_THAT(Refusal({"no.csv"}), AllOf(HasSubstr("no.csv"), HasSubstr("1f1b")));
}

TEST_F(Visualize, CostsComeFromAFileTooAndFitTheScheduleByReDividing) {
  std::ofstream(folder_ + "/costs.textproto") << "stage { count: 2 forward_ms: 1 input_gradient_ms: 1 "
                                                 "weight_gradient_ms: 1 }\nlink { latency_ms: 0.5 }\n";
  const auto with_costs = [](const char* ranks) {
    return Printed({"gpipe", "--micro-batches", "1", "--ranks", ranks, "--costs", "costs.textproto"});
  };
  EXPECT_THAT(with_costs("2"), HasSubstr("makespan of 7 ms"));
  EXPECT_THAT(with_costs("1"), HasSubstr("makespan of 6 ms")) << "the same model on one rank";
  EXPECT_THAT(with_costs("4"), HasSubstr("makespan of 9 ms")) << "six transfers";
  EXPECT_THAT(Refusal({"gpipe", "--costs", "costs.textproto", "--forward", "2"}), HasSubstr("--forward"));
  std::ofstream(folder_ + "/costs.textproto") << "stage { forward_ms: 1 }\n\nstage { forward_ms: -1 }\n";
  EXPECT_THAT(Refusal({"gpipe", "--costs", "costs.textproto"}),
              AllOf(HasSubstr("costs.textproto:3: stage.1.forward_ms"), HasSubstr("found -1")));
  std::ofstream(folder_ + "/costs.textproto") << "stage { forward_m: 1 }\n";
  EXPECT_THAT(Refusal({"gpipe", "--costs", "costs.textproto"}), HasSubstr("did you mean \"forward_ms\"?"));
}

TEST_F(Visualize, SaysWhatIsWrongWithItsInput) {
  EXPECT_THAT(Refusal({"1f2b"}), AllOf(HasSubstr("'1f2b'"), HasSubstr("verb/1f2b"), HasSubstr("gpipe, 1f1b")));
  EXPECT_THAT(Refusal({"1f1b", "-o", "picture.bmp"}), AllOf(HasSubstr("picture.bmp"), HasSubstr(".svg")));
  EXPECT_THAT(Refusal({"1f1b", "-o", "no/such/folder.svg"}), HasSubstr("no/such/folder.svg"));
  EXPECT_THAT(Refusal({"1f1b", "--ranks", "0"}), HasSubstr("--ranks"));
  for (const char* time : {"-1", "nan", "inf", "1e300", "fast"}) {
    EXPECT_THAT(Refusal({"1f1b", "--forward", time}), AllOf(HasSubstr("--forward"), HasSubstr(time)));
  }
  EXPECT_THAT(Refusal({"zb_auto", "--in-flight-cap", "nan"}), HasSubstr("--in-flight-cap"));
  EXPECT_THAT(Refusal({"1f1b", "--forward", "1e9", "--micro-batches", "100000"}), HasSubstr("nanoseconds"));
  EXPECT_THAT(Refusal({"1f1b", "--ranks", "100000", "--micro-batches", "100000"}), HasSubstr("smaller"));
  EXPECT_THAT(Refusal({}), HasSubstr("input"));
  std::ofstream(folder_ + "/notes.txt") << "not a trace";
  EXPECT_THAT(Refusal({"notes.txt"}), HasSubstr("not JSON"));
}

}  // namespace
}  // namespace sluice
