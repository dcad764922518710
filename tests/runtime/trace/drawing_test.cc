// Drawings of timelines: every box stands where its span was, and nothing comes from outside.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "runtime/trace/chart.h"
#include "runtime/trace/html.h"
#include "runtime/trace/svg.h"
#include "runtime/trace/text_chart.h"
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

// Unit costs in milliseconds: the timelines of the papers' figures.
SimulatedRun UnitRun(const std::string& schedule, int ranks, int micro_batches) {
  SimulatedRun run{.schedule = schedule, .ranks = ranks, .micro_batches = micro_batches, .latency_ns = 0};
  run.costs = {.forward_ns = 1'000'000,
               .input_gradient_ns = 1'000'000,
               .weight_gradient_ns = 1'000'000,
               .backward_ns = 2'000'000};
  return run;
}

Timeline UnitTimeline(const std::string& schedule, int ranks, int micro_batches) {
  return SimulatedTimeline(UnitRun(schedule, ranks, micro_batches));
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

// --- HTML ------------------------------------------------------------------------------------------------------------

nlohmann::json PageData(const std::string& html) {
  const std::string opening = "const DATA = ", closing = ";\n</script>";
  const size_t begin = html.find(opening) + opening.size();
  return nlohmann::json::parse(html.substr(begin, html.find(closing, begin) - begin));
}

TEST(Html, HoldsEveryActionAndNothingFromOutside) {
  SimulatedRun run = UnitRun("1f1b", 3, 5);
  run.latency_ns = 1000;
  Timeline timeline = SimulatedTimeline(run);
  timeline.name = "</script><script>alert(1)";
  const std::string html = DrawHtml({timeline, UnitTimeline("gpipe", 2, 2)});
  EXPECT_EQ(Count(html, "</script>"), 2u) << "the name of a schedule must not end the script";
  EXPECT_THAT(html, AllOf(Not(HasSubstr("http:")), Not(HasSubstr("https:")), Not(HasSubstr("src="))));
  const nlohmann::json data = PageData(html);
  ASSERT_EQ(data.at("charts").size(), 2u);
  EXPECT_EQ(data["charts"][0]["title"], timeline.name + ", simulated");
  std::multiset<std::vector<int64_t>> expected, drawn;
  for (const Span& span : timeline.spans) {
    if (!IsCompute(span.action.kind)) continue;
    expected.insert({span.rank.value(), span.action.kind == ActionKind::kBackward, span.action.stage.value(),
                     span.action.micro_batch.value(), span.begin_ns, span.end_ns});
  }
  const auto& rows = data["charts"][0]["rows"];
  ASSERT_EQ(rows.size(), 3u);
  for (size_t r = 0; r < rows.size(); ++r) {
    const std::vector<int64_t> boxes = rows[r]["boxes"];
    ASSERT_EQ(boxes.size() % 8, 0u);
    for (size_t i = 0; i < boxes.size(); i += 8) {
      if (boxes[i] > 1) continue;  // optimizer and collectives
      drawn.insert({static_cast<int64_t>(r), boxes[i], boxes[i + 1], boxes[i + 3], boxes[i + 6], boxes[i + 7]});
    }
    EXPECT_EQ(rows[r]["transfers"].size(), 9u * 5 * (r == 1 ? 4 : 2));
  }
  EXPECT_EQ(drawn, expected);
}

// What the page's script reports when `probe` runs behind it in a real browser, or nothing where there is no browser.
std::optional<std::string> RunInBrowser(std::string html, const std::string& probe) {
  if (std::system("command -v chromium >/dev/null 2>&1") != 0) return std::nullopt;
  const std::string frame = R"(<script>
    const area = canvas.getBoundingClientRect(), report = [];
    const at = (ns, rank, panel = 0) => ({clientX: area.left + x(ns), clientY: area.top + panelTop(panel) + HEAD + rank * pitch + 5,
                                          bubbles: true, pointerId: 1, cancelable: true});
    const factsAt = (...place) => {
      canvas.dispatchEvent(new PointerEvent("pointermove", at(...place)));
      return facts.textContent.replaceAll("\n", "; ");
    };
    const click = (...place) => ["pointerdown", "pointerup"].forEach(e => canvas.dispatchEvent(new PointerEvent(e, at(...place))));
    const pixel = (ns, rank) => [...paint.getImageData(Math.round(x(ns) * canvas.width / width),
      Math.round((HEAD + rank * pitch + 3) * canvas.width / width), 1, 1).data].join(" ");
    canvas.setPointerCapture = () => {};
    )" + probe + R"(
    document.querySelectorAll("script").forEach(script => script.remove());  // the data need not be dumped
    const result = document.createElement("pre");
    result.textContent = report.join("\n");
    document.body.append(result);
  </script></body>)";
  html.replace(html.find("</body>"), 7, frame);
  const std::string folder = ::testing::TempDir(), page = folder + "/page.html", dump = folder + "/dump.html";
  std::ofstream(page) << html;
  const std::string command =
      "HOME=" + folder + " timeout 100 chromium --headless=new --no-sandbox --disable-gpu --user-data-dir=" + folder +
      "/chromium --window-size=1200,800 --virtual-time-budget=2000 --dump-dom file://" + page + " >" + dump +
      " 2>/dev/null";
  const int code = std::system(command.c_str());
  std::stringstream text;
  text << std::ifstream(dump).rdbuf();
  if (code != 0 && text.str().empty()) return std::nullopt;
  const size_t begin = text.str().rfind("<pre>");
  return begin == std::string::npos ? "the script did not come to its end" : text.str().substr(begin);
}
constexpr char kNoBrowser[] =
    "no chromium that starts on this machine (Debian's package chromium): the page's script was not run";

TEST(Html, ZoomsFollowsAndTellsFactsInABrowser) {
  SimulatedRun run = UnitRun("1f1b", 2, 3);
  run.latency_ns = 100'000;
  const std::optional<std::string> report = RunInBrowser(DrawHtml({SimulatedTimeline(run)}), R"(
    report.push("facts: " + factsAt(1.5e6, 1));
    click(1.5e6, 0);
    report.push("followed: " + follow.value);
    const before = to - from;
    canvas.dispatchEvent(new WheelEvent("wheel", {...at(1.5e6, 0), deltaY: -400}));
    report.push("zoomed: " + (to - from < before * 0.6 && from <= 1.5e6 && to >= 1.5e6));
    report.push("address: " + location.hash.replace("&", " "));
    window.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape"}));
    report.push("let go: " + (follow.value === ""));)");
  if (!report) GTEST_SKIP() << kNoBrowser;
  EXPECT_THAT(*report,
              HasSubstr("facts: forward of micro-batch 0; rank 1, stage 1; takes 1 ms, from 1.1 ms to 2.1 ms; "
                        "the rank was idle for 1.1 ms before it;   1 ms of it until rank 0 had done the forward "
                        "of stage 0;   100 µs of it while the result moved or stood behind others; "
                        "received from rank 0, from 1 ms to 1.1 ms"));
  EXPECT_THAT(*report, HasSubstr("followed: 1"));
  EXPECT_THAT(*report, HasSubstr("zoomed: true"));
  EXPECT_THAT(*report, HasSubstr("address: #micro_batch=1 from="));
  EXPECT_THAT(*report, HasSubstr("let go: true"));
}

TEST(Html, ShowsTheWaitsThatAMicroBatchCausedInABrowser) {
  SimulatedRun run = UnitRun("1f1b", 2, 3);
  run.latency_ns = 100'000;
  const std::optional<std::string> report = RunInBrowser(DrawHtml({SimulatedTimeline(run)}), R"(
    const idle = pixel(0.5e6, 1), busy = pixel(0.5e6, 0);
    follow.value = 0;
    draw();
    report.push("way: " + wayText.textContent);
    report.push("marked: " + (pixel(0.5e6, 1) !== idle) + ", the box as before: " + (pixel(0.5e6, 0) === busy));
    follow.value = 7;
    draw();
    report.push("none: '" + wayText.textContent + "'");)");
  if (!report) GTEST_SKIP() << kNoBrowser;
  // F(0) 0..1, F(1) 1.1..2.1, B(1) 2.1..4.1, B(0) 4.2..6.2; rank 0 was busy until 2.
  EXPECT_THAT(*report,
              HasSubstr("way: micro-batch 0 takes 6.2 ms, from 0 ns to 6.2 ms; ranks wait 3.3 ms for it (3.1 ms "
                        "while others compute it, 200 µs while it moves), the longest rank 0 with 2.2 ms"));
  EXPECT_THAT(*report, HasSubstr("marked: true, the box as before: true"));
  EXPECT_THAT(*report, HasSubstr("none: ''"));
}

TEST(Html, ComparesTwoTimelinesInABrowser) {
  SimulatedRun slow = UnitRun("1f1b", 2, 3);
  slow.costs.forward_ns *= 2;
  Timeline measured = SimulatedTimeline(slow);
  measured.source = TimelineSource::kMeasured;
  const std::optional<std::string> report = RunInBrowser(DrawHtml({UnitTimeline("1f1b", 2, 3), measured}), R"(
    report.push("first: " + factsAt(1.5e6, 1));
    report.push("second: " + factsAt(2.5e6, 1, 1));)");
  if (!report) GTEST_SKIP() << kNoBrowser;
  EXPECT_THAT(*report, HasSubstr("in '1f1b, measured': takes 2 ms, begins 1 ms later"));
  EXPECT_THAT(*report, HasSubstr("in '1f1b, simulated': takes 1 ms, begins 1 ms earlier"));
}

TEST(Html, AMillionSpansAreDrawnFastEnoughToZoomInABrowser) {
  const std::string html = DrawHtml({UnitTimeline("1f1b", 64, 2700)});
  EXPECT_LT(html.size(), 64u << 20);
  const std::optional<std::string> report = RunInBrowser(html, R"(
    const middle = end / 2, times = [];
    for (const span of [end, end / 10, end / 100, end / 1000]) {
      from = middle - span / 2; to = middle + span / 2;
      draw();  // once to warm up
      const start = performance.now();
      draw();
      times.push(performance.now() - start);
    }
    report.push("slowest: " + Math.max(...times).toFixed(1) + " ms of " + times.map(t => t.toFixed(1)));)");
  if (!report) GTEST_SKIP() << kNoBrowser;
  const size_t at = report->find("slowest: ");
  ASSERT_NE(at, std::string::npos) << *report;
  std::printf("%zu bytes, %s\n", html.size(), report->substr(at, 20).c_str());
  // Without skipping what is too narrow it takes several seconds. The bound leaves room for a machine without a GPU that
  // does other things too.
  EXPECT_LT(std::stod(report->substr(at + 9)), 1000);
}

}  // namespace
}  // namespace sluice
