// Drawings of timelines: every box stands where its span was, and nothing comes from outside.
#include <algorithm>
#include <cmath>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/trace/chart.h"
#include "runtime/trace/deadlock_picture.h"
#include "runtime/trace/html.h"
#include "runtime/trace/svg.h"
#include "runtime/trace/text_chart.h"
#include "scheduler/csv.h"
#include "scheduler/verifier.h"
#include "tests/runtime/trace/test_timelines.h"

namespace sluice {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

size_t Count(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++count;
  return count;
}

// Two chunks on rank 0.
Timeline TwoChunks() {
  Timeline timeline{.name = "two chunks", .ranks = 1, .stages = 2, .micro_batches = 1};
  const auto add = [&](Action action, int64_t begin) {
    timeline.spans.push_back({PipelineRank(0), action, begin * 1000, begin * 1000 + 1000});
  };
  add(Forward(StageId(0), MicroBatch(0)), 0);
  add(Forward(StageId(1), MicroBatch(0)), 1);
  add(InputGradient(StageId(1), MicroBatch(0)), 2);
  add(WeightGradient(StageId(1), MicroBatch(0)), 3);
  return timeline;
}

// --- What all drawings share -----------------------------------------------------------------------------------------

TEST(Chart, FormatsTimesAndBytesAsPeopleReadThem) {
  EXPECT_EQ(FormatNanoseconds(0), "0 ns");
  EXPECT_EQ(FormatNanoseconds(820), "820 ns");
  EXPECT_EQ(FormatNanoseconds(33'000'000), "33 ms");
  EXPECT_EQ(FormatNanoseconds(1'250'000'000), "1.25 s");
  EXPECT_EQ(FormatNanoseconds(12'345), "12.35 µs");
  EXPECT_EQ(FormatNanoseconds(-5'000), "-5 µs");
  EXPECT_EQ(FormatBytes(512), "512 B");
  EXPECT_EQ(FormatBytes(12'897'485), "12.3 MiB");
  EXPECT_EQ(FormatBytes(int64_t{3} << 40), "3 TiB");
}

TEST(Chart, AxisMarksAreRoundAndFewEnough) {
  for (int64_t end : {int64_t{1}, int64_t{7}, int64_t{999}, int64_t{33'000'000}, int64_t{123'456'789'012}}) {
    for (int most : {1, 4, 13}) {
      const auto marks = AxisMarks(end, most);
      ASSERT_FALSE(marks.empty());
      EXPECT_EQ(marks.front().time_ns, 0);
      EXPECT_LE(marks.back().time_ns, end);
      EXPECT_LE(static_cast<int>(marks.size()), most + 1) << end;
      std::set<std::string> labels;
      for (const AxisMark& mark : marks) labels.insert(mark.label);
      EXPECT_EQ(labels.size(), marks.size()) << "two marks with one label, for " << end;
    }
  }
  EXPECT_EQ(AxisMarks(33'000'000, 4)[1].label, "10 ms");
}

TEST(Chart, CaptionSaysBubbleMakespanAndPeakMemory) {
  const Chart chart = MakeChart(UnitTimeline("1f1b", 4, 8));
  EXPECT_EQ(chart.title, "1f1b, simulated");
  EXPECT_THAT(chart.caption, HasSubstr("4 ranks, 8 micro-batches, bubble 27.3 % of the makespan of 33 ms"));
  EXPECT_THAT(chart.caption, HasSubstr("which is the span too, peak memory"));
  EXPECT_THAT(chart.caption, HasSubstr("MiB on rank 0"));
}

TEST(Chart, CaptionNeverMixesUpMakespanAndSpan) {
  EXPECT_THAT(MakeChart(UnitTimeline("zb_h2", 4, 8)).caption,
              HasSubstr("bubble 11.1 % of the makespan of 27 ms, 0.0 % of the span of 24 ms"));
}

TEST(Chart, WithoutBytesTheCaptionCountsWhatIsHeld) {
  const auto caption = [](const std::string& schedule, int ranks, int micro_batches) {
    SimulatedRun run = UnitRun(schedule, ranks, micro_batches);
    run.chunks = ChunksFor(schedule, ranks, micro_batches);
    Timeline timeline = SimulatedTimeline(run);
    timeline.samples.clear();
    return MakeChart(timeline).caption;
  };
  // The peaks of the papers: p, 2p - 1, (v-1)p + 2(p-1) + 1, 2p + 1.
  EXPECT_THAT(caption("1f1b", 4, 8), HasSubstr("peak memory 4 micro-batches on rank 0"));
  EXPECT_THAT(caption("zb_h2", 4, 8), HasSubstr("peak memory 7 micro-batches on rank 0"));
  EXPECT_THAT(caption("interleaved_1f1b", 4, 8), HasSubstr("peak memory 11 chunks on rank 0"));
  EXPECT_THAT(caption("dual_pipe_v", 4, 8), HasSubstr("peak memory 9 chunks on rank 0"));
  EXPECT_THAT(caption("dual_pipe", 4, 8), HasSubstr("peak memory 5 micro-batches on rank 0"));
  EXPECT_THAT(caption("forward_only", 4, 8), Not(HasSubstr("peak memory")));
}

TEST(Chart, EmptyTimelinesAreDrawnToo) {
  const Timeline empty{.name = "", .ranks = 2};
  EXPECT_THAT(DrawSvg({empty}), HasSubstr("rank 1"));
  EXPECT_THAT(DrawText({empty}), HasSubstr("rank 1"));
  EXPECT_THAT(DrawHtml({empty}), HasSubstr("\"boxes\":[]"));
}

// --- SVG -------------------------------------------------------------------------------------------------------------

// Whether every element that opens closes again, in order. Attributes have no < or > in them, as XML demands.
bool WellFormed(const std::string& xml) {
  std::vector<std::string> open;
  static const std::regex tag("<(/?)([a-z]+)((?:\\s+[a-zA-Z-]+=\"[^\"<>]*\")*)\\s*(/?)>");
  size_t tags = 0;
  for (std::sregex_iterator it(xml.begin(), xml.end(), tag), end; it != end; ++it, ++tags) {
    if ((*it)[1].length() > 0) {
      if (open.empty() || open.back() != (*it)[2]) return false;
      open.pop_back();
    } else if ((*it)[4].length() == 0) {
      open.push_back((*it)[2]);
    }
  }
  return open.empty() && tags == Count(xml, "<") && tags == Count(xml, ">");
}

struct DrawnBox {
  double x, width;
};

// The boxes of one colour, row by row as they stand in the picture.
std::vector<DrawnBox> DrawnBoxes(const std::string& svg, const std::string& color_class) {
  std::vector<DrawnBox> boxes;
  static const std::regex one("M([0-9.]+) 0h([0-9.]+)v[0-9.]+H[0-9.]+z");
  const std::string opening = "<path class=\"" + color_class + "\" d=\"";
  for (size_t at = svg.find(opening); at != std::string::npos; at = svg.find(opening, at + 1)) {
    const std::string path = svg.substr(at + opening.size(), svg.find('"', at + opening.size()) - at - opening.size());
    for (std::sregex_iterator it(path.begin(), path.end(), one), end; it != end; ++it) {
      boxes.push_back({std::stod((*it)[1]), std::stod((*it)[2])});
    }
  }
  return boxes;
}

TEST(Svg, IsWellFormedAndNeedsNothingFromOutside) {
  Timeline odd = UnitTimeline("1f1b", 2, 2);
  odd.name = "<b>&\"quoted\"";
  for (const std::string& svg :
       {DrawSvg({UnitTimeline("gpipe", 4, 8)}), DrawSvg({odd, TwoChunks()}, {.transfers = DrawTransfers::kYes})}) {
    EXPECT_TRUE(WellFormed(svg));
    EXPECT_EQ(Count(svg, "http"), 1u) << "the name space alone";
    EXPECT_THAT(svg, AllOf(Not(HasSubstr("<script")), Not(HasSubstr("url(")), Not(HasSubstr("@import")),
                           Not(HasSubstr("<image")), Not(HasSubstr("<b>"))));
    EXPECT_THAT(svg, HasSubstr("class=\"page\"")) << "a background of its own";
  }
}

TEST(Svg, EveryActionIsABoxAtItsTime) {
  const Timeline timeline = UnitTimeline("1f1b", 4, 8);
  const std::string svg = DrawSvg({timeline});
  const std::vector<DrawnBox> forwards = DrawnBoxes(svg, "f0"), backwards = DrawnBoxes(svg, "b0");
  ASSERT_EQ(forwards.size(), 32u);
  ASSERT_EQ(backwards.size(), 32u);
  // Rank 0: four forwards in a row, the first gradient comes back after 2p - 1 + ... = 10 units.
  const double unit = forwards[1].x - forwards[0].x;
  EXPECT_NEAR(forwards[3].x - forwards[0].x, 3 * unit, 0.05);
  EXPECT_NEAR(backwards[0].x - forwards[0].x, 10 * unit, 0.2);
  EXPECT_NEAR(backwards[7].x - forwards[0].x, 31 * unit, 0.2);
  EXPECT_NEAR(backwards[0].width, 2 * unit - 1, 0.1) << "a hair of space to the next box";
  for (const DrawnBox& box : backwards) EXPECT_LE(box.x + box.width, 1200 - 16);
}

// Micro-batch numbers in the boxes.
size_t Numbers(const std::string& svg) {
  size_t count = 0;
  for (size_t at = svg.find("<g class=\"n"); at != std::string::npos; at = svg.find("<g class=\"n", at + 1)) {
    count += Count(svg.substr(at, svg.find("</g>", at) - at), "<text ");
  }
  return count;
}

TEST(Svg, NumbersStandInTheBoxesAndVanishWhereTheyDoNotFit) {
  EXPECT_EQ(Numbers(DrawSvg({UnitTimeline("1f1b", 4, 8)})), 64u);
  EXPECT_EQ(Numbers(DrawSvg({UnitTimeline("1f1b", 64, 256)}, {.width = 1200})), 0u);
}

TEST(Svg, SixtyFourRanksHaveTheirRowsAndLabels) {
  const std::string svg = DrawSvg({UnitTimeline("1f1b", 64, 64)});
  EXPECT_EQ(Count(svg, "class=\"lane\""), 64u);
  EXPECT_EQ(Count(svg, "class=\"rank\""), 64u);
  EXPECT_THAT(svg, HasSubstr(">rank 63<"));
}

TEST(Svg, AMillionSpansStaySmall) { EXPECT_LT(DrawSvg({UnitTimeline("1f1b", 64, 2700)}).size(), 16u << 20); }

TEST(Svg, ChunksHaveShadesOfOneColour) {
  const std::string svg = DrawSvg({TwoChunks()});
  EXPECT_EQ(DrawnBoxes(svg, "f0").size(), 1u);
  EXPECT_EQ(DrawnBoxes(svg, "f1").size(), 1u);
  EXPECT_EQ(DrawnBoxes(svg, "i1").size(), 1u);
  EXPECT_EQ(DrawnBoxes(svg, "w1").size(), 1u);
  EXPECT_NE(BoxColor(BoxKind::kForward, 0, 2).Hex(), BoxColor(BoxKind::kForward, 1, 2).Hex());
  EXPECT_THAT(svg, HasSubstr("input gradient, chunks 0 and 1"));
  EXPECT_THAT(svg, Not(HasSubstr(">optimizer"))) << "the legend names what occurs";
}

TEST(Svg, OverlappedPairsAndCopiesCanBeToldApart) {
  const std::string pairs = DrawSvg({UnitTimeline("dual_pipe", 4, 8)});
  EXPECT_EQ(Count(pairs, "<path class=\"pair\""), 4u) << "one line below the pairs of each rank";
  EXPECT_THAT(pairs, AllOf(HasSubstr(">one overlapped pair<"), HasSubstr(">forward, copies 0 and 1<")));
  EXPECT_EQ(DrawnBoxes(pairs, "f0").size() + DrawnBoxes(pairs, "f1").size(), 4u * 8);
  const std::string none = DrawSvg({UnitTimeline("chimera", 4, 8)});
  EXPECT_EQ(Count(none, "class=\"pair\""), 0u);
}

TEST(Svg, TwoTimelinesShareOneAxis) {
  SimulatedRun slow = UnitRun("1f1b", 4, 8);
  slow.costs.forward_ns *= 2;
  slow.costs.backward_ns *= 2;
  Timeline measured = SimulatedTimeline(slow);
  measured.source = TimelineSource::kMeasured;
  const std::string svg = DrawSvg({UnitTimeline("1f1b", 4, 8), measured});
  EXPECT_THAT(svg, AllOf(HasSubstr("1f1b, simulated"), HasSubstr("1f1b, measured")));
  const std::vector<DrawnBox> forwards = DrawnBoxes(svg, "f0");
  ASSERT_EQ(forwards.size(), 64u);
  EXPECT_NEAR(2 * (forwards[1].x - forwards[0].x), forwards[33].x - forwards[32].x, 0.05);
  EXPECT_EQ(forwards[0].x, forwards[32].x);
}

TEST(Svg, TransfersAreDrawnOnlyWhenAskedFor) {
  SimulatedRun run = UnitRun("1f1b", 4, 8);
  run.latency_ns = 200'000;
  const Timeline timeline = SimulatedTimeline(run);
  EXPECT_EQ(Count(DrawSvg({timeline}), "class=\"tf\""), 0u);
  const std::string svg = DrawSvg({timeline}, {.transfers = DrawTransfers::kYes});
  EXPECT_EQ(Count(svg, "<path class=\"tf\""), 4u);
  EXPECT_EQ(Count(svg, "<path class=\"tb\""), 4u);
}

// --- A deadlock ------------------------------------------------------------------------------------------------------

TEST(DeadlockPicture, MarksTheCircle) {
  for (const char* schedule : {"1f1b", "zb_h1", "interleaved_1f1b", "dual_pipe"}) {
    SCOPED_TRACE(schedule);
    const auto read = ReadCsv(LateReceivesCsv(schedule, 4, 8), "late.csv");
    ASSERT_TRUE(read.ok()) << read.status();
    const auto program = Lower(*read);
    ASSERT_TRUE(program.ok()) << program.status();
    const auto deadlock = FindDeadlock(*program);
    ASSERT_TRUE(deadlock.has_value());
    EXPECT_EQ(Verify(*program).status().message(), ToString(*deadlock));
    const std::string svg = DrawDeadlock(*program, *deadlock);
    EXPECT_TRUE(WellFormed(svg));
    EXPECT_EQ(Count(svg, "class=\"arrow\""), deadlock->circle.size());
    EXPECT_EQ(Count(svg, " waits\""), deadlock->circle.size());
    for (const Wait& wait : deadlock->circle) {
      const Action& action = program->ranks[wait.from.rank.index()][wait.from.position];
      EXPECT_THAT(svg, AllOf(HasSubstr(">rank " + std::to_string(wait.from.rank.value()) + "<"),
                             HasSubstr(">" + ToString(action) + "<")));
    }
    EXPECT_LT(svg.size(), 20'000u);
  }
}

// --- Text ------------------------------------------------------------------------------------------------------------

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

TEST(TextChart, IsThePapersFigureInLetters) {
  Timeline timeline = UnitTimeline("1f1b", 2, 3);
  std::erase_if(timeline.spans, [](const Span& span) { return !IsCompute(span.action.kind); });
  // 12 units of time in 48 columns.
  const std::string text = DrawText({timeline}, {.width = 48 + 7});
  const std::vector<std::string> lines = Lines(text);
  ASSERT_EQ(lines.size(), 5u);
  EXPECT_EQ(lines[1], "rank 0 F0--F1--        B0======F2--B1======    B2======");
  EXPECT_EQ(lines[2], "rank 1     F0--B0======F1--B1======F2--B2======");
  EXPECT_EQ(lines[4], "F forward  B backward");
}

TEST(TextChart, FitsItsWidthAtAnySize) {
  for (int width : {40, 80, 133}) {
    for (const auto& [ranks, micro_batches] : {std::pair(4, 8), {8, 32}, {64, 256}}) {
      const auto lines = Lines(DrawText({UnitTimeline("1f1b", ranks, micro_batches)}, {.width = width}));
      ASSERT_EQ(lines.size(), static_cast<size_t>(ranks) + 3);
      for (size_t i = 1; i <= static_cast<size_t>(ranks) + 1; ++i) {
        EXPECT_LE(lines[i].size(), static_cast<size_t>(width)) << lines[i];
      }
    }
  }
}

TEST(TextChart, ColoursChangeNothingButTheColour) {
  const Timeline timeline = UnitTimeline("1f1b", 4, 8);
  const std::string plain = DrawText({timeline}), colored = DrawText({timeline}, {.colors = TextColors::kAnsi});
  EXPECT_EQ(Count(plain, "\033"), 0u);
  EXPECT_GT(Count(colored, "\033["), 64u);
  const std::string stripped = std::regex_replace(colored, std::regex("\033\\[[0-9;]*m"), "");
  EXPECT_EQ(Lines(stripped)[1].size(), Lines(plain)[1].size());
}

}  // namespace
}  // namespace sluice
