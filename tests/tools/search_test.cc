// `sluice search` as it is typed: what it prints and writes, and what it says when it can't.
#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/csv.h"
#include "scheduler/lowering.h"
#include "scheduler/verifier.h"
#include "tests/tools/verb_test.h"

namespace sluice {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class SearchVerb : public VerbTest<tools::AddSearch> {
 protected:
  void Write(const std::string& name, const std::string& text) const { std::ofstream(folder_ + "/" + name) << text; }
};

TEST_F(SearchVerb, PrintsBothObjectivesTheirBoundsAndWhatIsOptimised) {
  const std::string text = Printed({"--ranks", "4", "--micro-batches", "8", "--chunks", "1", "--cap", "2p",
                                    "--objective", "span", "--seconds", "1"});
  EXPECT_THAT(
      text,
      AllOf(HasSubstr("4 ranks, 8 micro-batches, at most 8 micro-batches in flight on a rank; the span is optimised"),
            HasSubstr("zb_h2"), HasSubstr("lower bound"), HasSubstr("gap of found")));
  // Zero bubble in span, p-1 forwards of makespan: both are bounds.
  EXPECT_THAT(text, AllOf(HasSubstr("27 ms"), HasSubstr("24 ms"), HasSubstr("0.00 %"),
                          HasSubstr("proven: no span is shorter")));
}

TEST_F(SearchVerb, WritesAScheduleThatIsProven) {
  EXPECT_THAT(
      Printed({"--ranks", "3", "--micro-batches", "4", "--transfer", "0.1", "--seconds", "1", "-o", "best.csv"}),
      HasSubstr("wrote best.csv"));
  const auto schedule = ReadCsv(Text("best.csv"), "best.csv");
  ASSERT_TRUE(schedule.ok()) << schedule.status();
  EXPECT_EQ(schedule->micro_batches, 4);
  EXPECT_TRUE(Verify(*Lower(*schedule)).ok());
}

TEST_F(SearchVerb, TakesUnevenCostsFromAFileAndACapInBytes) {
  Write("costs.txtpb",
        "stage { forward_ms: 2 input_gradient_ms: 1 weight_gradient_ms: 1 stash_bytes: 1048576 activation_bytes: 10 }\n"
        "stage { forward_ms: 1 input_gradient_ms: 1 weight_gradient_ms: 1 stash_bytes: 1048576 }\n");
  const std::vector<std::string> words = {"--ranks", "2",           "--micro-batches", "4", "--chunks", "1",
                                          "--costs", "costs.txtpb", "--seconds",       "1", "--cap"};
  auto with = [&](const std::string& cap) {
    auto all = words;
    all.push_back(cap);
    return all;
  };
  EXPECT_THAT(Printed(with("2MiB")),
              AllOf(HasSubstr("at most 2 MiB of activations on a rank"), HasSubstr("over the cap")));
  EXPECT_THAT(Refusal(with("1000B")), HasSubstr("no order was found that fits the memory cap"));
}

TEST_F(SearchVerb, SweepsMemoryIntoATableAndAPicture) {
  const std::string text = Printed({"--ranks", "4", "--micro-batches", "6", "--sweep-memory", "--points", "4",
                                    "--seconds", "1", "-o", "curve.csv", "--picture", "curve.svg"});
  EXPECT_THAT(text, AllOf(HasSubstr("best generator"), HasSubstr("lower bound"), HasSubstr("wrote curve.csv"),
                          HasSubstr("wrote curve.svg")));
  const std::string csv = Text("curve.csv"), svg = Text("curve.svg");
  EXPECT_THAT(csv, StartsWith("in_flight_cap,best_generator"));
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 5);
  EXPECT_THAT(svg, AllOf(StartsWith("<svg"), HasSubstr("Bubble against memory"), HasSubstr("1f1b v=1"),
                         HasSubstr("found by the search")));
}

TEST_F(SearchVerb, RefusesWithTheFlagsName) {
  EXPECT_THAT(
      Refusal({"--cap", "much"}),
      HasSubstr("--cap: expected micro-batches in flight on a rank (12), multiples of the ranks (2p) or bytes"));
  EXPECT_THAT(Refusal({"--cap", "-3"}), HasSubstr("--cap: expected"));
  EXPECT_THAT(Refusal({"--cap", "nan"}), HasSubstr("--cap: expected"));
  EXPECT_THAT(Refusal({"--cap", "1GiB"}), HasSubstr("needs the bytes of the stages"));
  EXPECT_THAT(Refusal({"--seconds", "nan"}), HasSubstr("--seconds"));
  EXPECT_THAT(Refusal({"--weight-memory", "nan"}), HasSubstr("--weight-memory"));
  EXPECT_THAT(Refusal({"--objective", "speed"}), HasSubstr("--objective"));
  EXPECT_THAT(Refusal({"-o", "best.svg"}), HasSubstr("end 'best.svg' in .csv"));
  EXPECT_THAT(Refusal({"--picture", "curve.svg"}), HasSubstr("--sweep-memory"));
  EXPECT_THAT(Refusal({"--ranks", "4096", "--micro-batches", "4096"}), HasSubstr("more than can be searched"));
}

}  // namespace
}  // namespace sluice
