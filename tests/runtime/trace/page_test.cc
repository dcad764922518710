// The page: it holds every action, and does in a real browser what it says. A drawn million stays usable.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "runtime/trace/html.h"
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

// Counted and not timed, since tests share their machine: without skipping there are a million rectangles to paint.
TEST(Html, AMillionSpansArePaintedInAFewRectanglesAPixelInABrowser) {
  const std::string html = DrawHtml({UnitTimeline("1f1b", 64, 2700)});
  EXPECT_LT(html.size(), 64u << 20);
  const std::optional<std::string> report = RunInBrowser(html, R"(
    const middle = end / 2, counts = [], times = [], fill = paint.fillRect.bind(paint);
    let rectangles = 0;
    paint.fillRect = (...where) => { ++rectangles; fill(...where); };
    for (const span of [end, end / 10, end / 100, end / 1000]) {
      from = middle - span / 2; to = middle + span / 2;
      rectangles = 0;
      const start = performance.now();
      draw();
      times.push((performance.now() - start).toFixed(0));
      counts.push(rectangles);
    }
    report.push("most: " + Math.max(...counts) + " rectangles in " + times + " ms, " + counts + " in each view");)");
  if (!report) GTEST_SKIP() << kNoBrowser;
  const size_t at = report->find("most: ");
  ASSERT_NE(at, std::string::npos) << *report;
  std::printf("%zu bytes, %s\n", html.size(), report->substr(at).c_str());
  EXPECT_LT(std::stoi(report->substr(at + 6)), 64 * 1200 * 3 / 2);
}

}  // namespace
}  // namespace sluice
