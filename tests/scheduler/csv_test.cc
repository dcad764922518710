// The text form: what is written is read again, PyTorch's conventions are understood, errors name the place.
#include "scheduler/csv.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/generators.h"
#include "scheduler/lowering.h"
#include "scheduler/verifier.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

std::string Refusal(absl::string_view text) { return std::string(ReadCsv(text, "f.csv").status().message()); }

TEST(CsvTest, EverySchedulesOwnTextIsReadAgain) {
  for (const Generator& generator : Generators()) {
    for (int chunks : {1, 2}) {
      const auto schedule = generator.generate({.ranks = 4, .chunks = chunks, .micro_batches = 12});
      if (!schedule.ok()) continue;
      const auto read = ReadCsv(WriteCsv(schedule->ranks), generator.name);
      ASSERT_TRUE(read.ok()) << read.status();
      EXPECT_EQ(*read, *schedule) << generator.name;
    }
  }
}

TEST(CsvTest, TransfersAreReadAndKept) {
  for (const Generator& generator : Generators()) {
    const auto schedule = generator.generate({.ranks = 2, .chunks = 2, .micro_batches = 8});
    if (!schedule.ok()) continue;
    const Program program = *Lower(*schedule);
    const std::string text = WriteCsv(program.ranks);
    const auto read = ReadCsv(text, generator.name);
    ASSERT_TRUE(read.ok()) << read.status();
    const auto again = Lower(*read);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(WriteCsv(again->ranks), text);
    EXPECT_TRUE(Verify(*again).ok()) << generator.name << Verify(*again).status();
  }
}

TEST(CsvTest, IdleCellsPairsLineEndsAndShardingAreUnderstood) {
  const auto schedule = ReadCsv(
      "0UNSHARD,0F0,,0F1, ,(0F2;0B0)OVERLAP_F_B,0B1,0B2,0REDUCE_GRAD,0RESHARD,\r\n,1F0,1I0,1F1,1W0,1B1,1F2,1B2,,,\r\n",
      "f.csv");
  ASSERT_TRUE(schedule.ok()) << schedule.status();
  EXPECT_EQ(ToText(schedule->ranks),
            "0UNSHARD 0F0 0F1 0F2 0B0 0B1 0B2 0REDUCE_GRAD 0RESHARD\n1F0 1I0 1F1 1W0 1B1 1F2 1B2\n");
  EXPECT_EQ(schedule->ranks[0][3].flags, kOverlapsNext);
  EXPECT_EQ(schedule->micro_batches, 3);
  EXPECT_EQ(schedule->placement, Placement::Loop(2, 1));
  EXPECT_EQ(schedule->pass, PassKind::kTraining);
  const auto program = Lower(*schedule);
  ASSERT_TRUE(program.ok()) << program.status();
  EXPECT_TRUE(Verify(*program).ok()) << Verify(*program).status();
}

TEST(CsvTest, OtherHandsAreUnderstood) {
  const Schedule expected = *ReadCsv("0F0,0B0\n1F0,1B0\n", "f.csv");
  for (const char* text : {"\xef\xbb\xbf" "0F0,0B0\r\n1F0,1B0\r\n", "\"0F0\",\" 0B0 \",\"\",,\n1F0,1B0\n\n , \n",
                           " 0F0 ,\t0B0 \n , 1F0,,1B0"}) {
    const auto schedule = ReadCsv(text, "f.csv");
    ASSERT_TRUE(schedule.ok()) << schedule.status();
    EXPECT_EQ(*schedule, expected) << text;
  }
  EXPECT_EQ(std::string(ReadCsv("\xef\xbb\xbf" "0F0,x\n", "f.csv").status().message()),
            "f.csv:1:8: expected the number of a stage, found 'x'");
}

// What is now I was B, and what is now B was BW.
TEST(CsvTest, OlderLettersMeanTheSame) {
  for (const Generator& generator : Generators()) {
    const auto schedule = generator.generate({.ranks = 4, .chunks = 1, .micro_batches = 12});
    if (!schedule.ok()) continue;
    std::string older;
    for (char c : WriteCsv(schedule->ranks)) {
      if (c == 'B' && !older.ends_with("_F_")) older += "BW";
      else older += c == 'I' ? 'B' : c;
    }
    const auto read = ReadCsv(older, generator.name);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(*read, *schedule) << generator.name;
  }
}

TEST(CsvTest, ErrorsNameLineAndColumn) {
  EXPECT_EQ(Refusal("0F0,0B0\n1F0,xB0\n"), "f.csv:2:5: expected the number of a stage, found 'x'");
  EXPECT_EQ(Refusal("0F0,0B\n"), "f.csv:1:7: expected the number of a micro-batch, found the end of the line");
  EXPECT_EQ(Refusal("0F0;0B0\n"), "f.csv:1:4: expected ',' or the end of the line, found ';'");
  EXPECT_EQ(Refusal("0F0,(0F1,0B0)OVERLAP_F_B\n"), "f.csv:1:9: expected ';', found ','");
  EXPECT_EQ(Refusal("0F0,(0F1;0B0)OVERLAP\n"), "f.csv:1:14: expected OVERLAP_F_B, found 'O'");
  EXPECT_EQ(Refusal("0F0,(0B0;0F1)OVERLAP_F_B\n"), "f.csv:1:5: expected a pair of an F and a B");
  EXPECT_THAT(Refusal("0F0,0BB0\n"), HasSubstr("f.csv:1:6: expected F, B, I, W, SEND_F"));
  EXPECT_THAT(Refusal("0F0,0BB0\n"), HasSubstr("found 'BB'"));
  EXPECT_EQ(Refusal("\"0F0,0B0\n"), "f.csv:1:5: expected '\"', found ','");
  EXPECT_EQ(Refusal("0F0,0B0\n\n1F0,1B0\n"), "f.csv: line 2 has no action; each line is a rank");
  EXPECT_EQ(Refusal("99999999999F0\n"), "f.csv:1:1: the number is too large");
  EXPECT_EQ(Refusal("0F0,0B0\n0F1,0B1\n"), "f.csv: stage 0 is on line 1 and, with 0F1, on line 2");
  EXPECT_EQ(Refusal("0F0,0B0,2F0\n"), "f.csv: stage 1 of copy 0 has no action");
  EXPECT_EQ(Refusal("90000000F0\n"), "f.csv: 1 actions can't be all of 90000001 stages and 1 micro-batches");
  EXPECT_EQ(Refusal(""), "f.csv: expected a line of actions for each rank, found none");
}

TEST(CsvTest, ATransferOrderThatWouldHangIsRefusedByTheVerifier) {
  const auto schedule = ReadCsv(
      "0F0,0SEND_F0,0F1,0SEND_F1,0RECV_B0,0B0,0RECV_B1,0B1\n"
      "1RECV_F0,1F0,1B0,1SEND_B0,1RECV_F1,1F1,1B1,1SEND_B1\n",
      "f.csv");
  ASSERT_TRUE(schedule.ok()) << schedule.status();
  EXPECT_TRUE(Verify(*Lower(*schedule), {.progress = ProgressProof::kAsAssigned}).ok());
  const Program program = *Lower(*schedule, {.queues = QueuePolicy::kOneCommPerRank});
  EXPECT_THAT(std::string(Verify(program).status().message()), HasSubstr("deadlock, ranks 0, 1 wait in a circle"));
}

TEST(MergeBackwardTest, AdjacentHalvesBecomeOne) {
  const Schedule schedule = *Generate("zb_v", {.ranks = 1, .micro_batches = 2});
  EXPECT_EQ(ToText(schedule.ranks), "0F0 1F0 1I0 1W0 0F1 0I0 0W0 1F1 1I1 1W1 0I1 0W1\n");
  EXPECT_EQ(ToText(MergeBackward(schedule).ranks), "0F0 1F0 1B0 0F1 0B0 1F1 1B1 0B1\n");
}

}  // namespace
}  // namespace sluice
