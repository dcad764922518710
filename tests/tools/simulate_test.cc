// `sluice simulate` as it is typed: its tables, and what it says when it can't.
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "scheduler/csv.h"
#include "scheduler/generators.h"
#include "tests/tools/verb_test.h"

namespace sluice {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class Simulate : public VerbTest<tools::AddSimulate> {
 protected:
  static nlohmann::json Json(std::vector<std::string> words) {
    words.insert(words.end(), {"--format", "json"});
    return nlohmann::json::parse(Printed(words));
  }
};

TEST_F(Simulate, ComparesEveryScheduleThatTrainsAtOneSetting) {
  const std::string text = Printed({"--ranks", "4", "--chunks", "2", "--micro-batches", "8"});
  for (const Generator& generator : Generators()) {
    if (generator.name == "forward_only") continue;
    EXPECT_THAT(text, HasSubstr("\n" + generator.name + " "));
  }
  std::istringstream lines(text.substr(0, text.find("refused")));
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 120u) << line;
}

TEST_F(Simulate, TheModelStaysTheSameWhateverTheNumberOfStages) {
  const nlohmann::json rows = Json({"1f1b", "zb_v", "interleaved_1f1b", "--chunks", "2", "--forward", "1"});
  ASSERT_EQ(rows.size(), 3u);
  // Eight stages of 3 ms in the model, on four ranks: 6 ms a micro-batch on each of them, eight micro-batches.
  for (const nlohmann::json& row : rows) {
    for (const nlohmann::json& rank : row["ranks"]) EXPECT_EQ(rank["busy_ns"], 48'000'000) << row["schedule"];
  }
  EXPECT_EQ(rows[0]["stages"], 4);
  EXPECT_EQ(rows[0]["makespan_ns"], 66'000'000);
  EXPECT_EQ(rows[1]["stages"], 8);
  EXPECT_EQ(rows[2]["makespan_ns"], 57'000'000);
}

TEST_F(Simulate, MakespanAndSpanAreBothThere) {
  const nlohmann::json row = Json({"zb_h2", "--micro-batches", "12"})[0];
  EXPECT_EQ(row["makespan_ns"], 39'000'000);
  EXPECT_EQ(row["span_ns"], 36'000'000);
  EXPECT_DOUBLE_EQ(row["makespan_bubble"], 3.0 / 39);
  EXPECT_DOUBLE_EQ(row["span_bubble"], 0);
  EXPECT_EQ(row["in_flight"], 7);
  EXPECT_EQ(row["messages"], 2 * 3 * 12);
}

TEST_F(Simulate, OneScheduleIsShownByRank) {
  const std::string text = Printed({"gpipe", "--ranks", "2", "--micro-batches", "1"});
  EXPECT_THAT(text, AllOf(HasSubstr("rank 0"), HasSubstr("rank 1"), HasSubstr("warm-up")));
  EXPECT_THAT(Printed({"gpipe", "1f1b"}), Not(HasSubstr("rank 0")));
}

TEST_F(Simulate, WritesCsvAndFiles) {
  EXPECT_THAT(Printed({"gpipe", "--ranks", "2", "--micro-batches", "1", "--format", "csv"}),
              AllOf(HasSubstr("schedule,refused,stages,makespan_ns,"), HasSubstr("\ngpipe,,2,6000000,0.5,")));
  ASSERT_TRUE(Call({"gpipe", "nothing", "-o", "table.csv"}).ok());
  std::stringstream text;
  text << std::ifstream(folder_ + "/table.csv").rdbuf();
  EXPECT_THAT(text.str(), HasSubstr("\nnothing,\"'nothing' is neither"));
  EXPECT_THAT(Refusal({"gpipe", "-o", "table.doc"}), HasSubstr("table.doc"));
}

TEST_F(Simulate, TakesScheduleFilesBesideNames) {
  std::ofstream(folder_ + "/mine.csv") << "0F0,0B0,0F1,0B1\n1F0,1B0,1F1,1B1\n";
  const nlohmann::json rows = Json({"mine.csv", "1f1b", "--ranks", "2", "--micro-batches", "2"});
  EXPECT_EQ(rows[0]["schedule"], "mine.csv");
  EXPECT_EQ(rows[0]["makespan_ns"], 12'000'000);
  EXPECT_EQ(rows[1]["makespan_ns"], 9'000'000);
}

TEST_F(Simulate, ScenariosDisturbAndSeedsRepeat) {
  const std::vector<std::string> base = {"1f1b", "--transfer", "0.1", "--message-bytes", "1000000"};
  const auto makespan = [&](std::vector<std::string> more) -> int64_t {
    more.insert(more.begin(), base.begin(), base.end());
    return Json(more)[0]["makespan_ns"];
  };
  const int64_t calm = makespan({});
  EXPECT_EQ(makespan({"--jitter", "0.2", "--seed", "5"}), makespan({"--jitter", "0.2", "--seed", "5"}));
  EXPECT_NE(makespan({"--jitter", "0.2", "--seed", "5"}), makespan({"--jitter", "0.2", "--seed", "6"}));
  EXPECT_GT(makespan({"--straggler", "2=2"}), calm + 10'000'000);
  EXPECT_GT(makespan({"--hosts", "2", "--host-bandwidth", "1e9"}), calm) << "a message takes 1 ms on the line";
  EXPECT_GE(makespan({"--engines", "one"}), calm);
}

TEST_F(Simulate, SaysWhatIsWrongWithItsInput) {
  EXPECT_THAT(Refusal({"1f2b"}), AllOf(HasSubstr("'1f2b'"), HasSubstr("gpipe, 1f1b")));
  EXPECT_THAT(Refusal({"interleaved_1f1b"}), HasSubstr("--chunks 2"));
  EXPECT_THAT(Refusal({"1f1b", "--jitter", "nan"}), HasSubstr("--jitter"));
  EXPECT_THAT(Refusal({"1f1b", "--jitter", "1"}), HasSubstr("--jitter"));
  EXPECT_THAT(Refusal({"1f1b", "--straggler", "4=2"}), AllOf(HasSubstr("4=2"), HasSubstr("0 to 3")));
  EXPECT_THAT(Refusal({"1f1b", "--straggler", "1=nan"}), HasSubstr("RANK=FACTOR"));
  EXPECT_THAT(Refusal({"1f1b", "--straggler", "1"}), HasSubstr("RANK=FACTOR"));
  EXPECT_THAT(Refusal({"1f1b", "--engines", "three"}), HasSubstr("--engines"));
  EXPECT_THAT(Refusal({"1f1b", "--costs", "a", "--job", "b"}), AllOf(HasSubstr("--costs"), HasSubstr("--job")));
}

TEST_F(Simulate, AnOptionIsOneWordAndIsCheckedOnce) {
  EXPECT_THAT(Printed({"--straggler", "1=2", "--straggler", "2=3", "1f1b"}), Not(HasSubstr("gpipe")));
  EXPECT_THAT(Refusal({"--straggler", "1=x"}), HasSubstr("--straggler 1=x: expected RANK=FACTOR"));
  EXPECT_THAT(Refusal({"--straggler", "9=2"}), HasSubstr("ranks are 0 to 3"));
  EXPECT_THAT(Refusal({"1f1b", "--hosts", "2", "--host-bandwidth", "1e-300", "--message-bytes", "5"}),
              HasSubstr("--host-bandwidth 1e-300"));
}

TEST_F(Simulate, AFileHasTheCostsOfTheGeneratorThatWroteIt) {
  const auto schedule = Generate("v_half", {.ranks = 2, .micro_batches = 4});
  ASSERT_TRUE(schedule.ok()) << schedule.status();
  std::ofstream(folder_ + "/mine.csv") << WriteCsv(schedule->ranks);
  const nlohmann::json rows = Json({"mine.csv", "v_half", "--ranks", "2", "--micro-batches", "4"});
  EXPECT_EQ(rows[0]["makespan_ns"], rows[1]["makespan_ns"]);
}

TEST_F(Simulate, NeverWritesOverWhatItReads) {
  std::ofstream(folder_ + "/mine.csv") << "0F0,0B0\n";
  EXPECT_THAT(Refusal({"mine.csv", "-o", "mine.csv"}), HasSubstr("'mine.csv' is what is read"));
  EXPECT_EQ(Text("mine.csv"), "0F0,0B0\n");
}

TEST_F(Simulate, NamesTheFileThatCannotRun) {
  std::ofstream(folder_ + "/twice.csv") << "0F0,0F0,0B0\n";
  EXPECT_THAT(Refusal({"twice.csv"}), HasSubstr("twice.csv: "));
}

}  // namespace
}  // namespace sluice
