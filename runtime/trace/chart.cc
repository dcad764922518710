#include "runtime/trace/chart.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace sluice {
namespace {

std::optional<BoxKind> BoxKindOf(ActionKind kind) {
  switch (kind) {
    case ActionKind::kForward:
      return BoxKind::kForward;
    case ActionKind::kBackward:
      return BoxKind::kBackward;
    case ActionKind::kInputGradient:
      return BoxKind::kInputGradient;
    case ActionKind::kWeightGradient:
      return BoxKind::kWeightGradient;
    case ActionKind::kOptimizerStep:
    case ActionKind::kPostValidation:  // a line, except where it does the step before again
      return BoxKind::kOptimizer;
    case ActionKind::kReduceGradient:
    case ActionKind::kNorm:
    case ActionKind::kCollective:
      return BoxKind::kCollective;
    default:
      return std::nullopt;
  }
}

// The (copy, stage) pairs that a rank computes on, ascending: their places are the chunk numbers.
using Chunks = std::set<std::pair<int, int>>;

int ChunkOf(const Chunks& chunks, const Action& action) {
  return static_cast<int>(std::distance(chunks.begin(), chunks.find({action.copy, action.stage.value()})));
}

std::string SizeText(const Timeline& timeline) {
  return absl::StrCat(timeline.ranks, timeline.ranks == 1 ? " rank, " : " ranks, ",
                      timeline.stages > timeline.ranks ? absl::StrCat(timeline.stages, " stages, ") : "",
                      timeline.micro_batches, " micro-batches");
}

// Makespan and span always with their names: where ranks may shift against one another the span counts.
std::string BubbleText(const TimelineMetrics& metrics) {
  if (metrics.makespan_ns <= 0) return "";
  std::string text = absl::StrFormat(", bubble %.1f %% of the makespan of %s", 100 * metrics.makespan_bubble,
                                     FormatNanoseconds(metrics.makespan_ns));
  if (metrics.span_ns == metrics.makespan_ns) return text + ", which is the span too";
  absl::StrAppendFormat(&text, ", %.1f %% of the span of %s", 100 * metrics.span_bubble,
                        FormatNanoseconds(metrics.span_ns));
  return text;
}

// Most chunks (one stage's activations of one micro-batch) that a row's rank holds, from F to the end of B or W. Rows
// without gradients hold nothing back.
int ChunksInFlightMax(const ChartRow& row) {
  int held = 0, most = 0;
  bool released = false;
  for (const Box& box : row.boxes) {
    if (box.kind == BoxKind::kForward) most = std::max(most, ++held);
    if (box.kind != BoxKind::kBackward && box.kind != BoxKind::kWeightGradient) continue;
    --held;
    released = true;
  }
  return released ? most : 0;
}

// In bytes where they are known, else in chunks.
std::string MemoryText(const TimelineMetrics& metrics, const Chart& chart) {
  std::vector<int64_t> bytes, chunks;
  for (const RankMetrics& rank : metrics.ranks) bytes.push_back(rank.memory_bytes_max);
  for (const ChartRow& row : chart.rows) chunks.push_back(ChunksInFlightMax(row));
  const auto fullest = [](const std::vector<int64_t>& of_ranks) {
    return std::max_element(of_ranks.begin(), of_ranks.end());
  };
  if (const auto most = fullest(bytes); most != bytes.end() && *most > 0) {
    return absl::StrCat(", peak memory ", FormatBytes(*most), " on rank ", most - bytes.begin());
  }
  const auto most = fullest(chunks);
  if (most == chunks.end() || *most == 0) return "";
  return absl::StrCat(", peak memory ", *most, chart.chunks > chart.copies ? " chunks" : " micro-batches", " on rank ",
                      most - chunks.begin());
}

std::string Trimmed(double value, int decimals) {
  std::string text = absl::StrFormat("%.*f", decimals, value);
  if (text.find('.') != std::string::npos) {
    text.erase(text.find_last_not_of('0') + 1);
    if (text.back() == '.') text.pop_back();
  }
  return text;
}

struct Unit {
  double ns;
  const char* name;
};
constexpr Unit kUnits[] = {{1e9, "s"}, {1e6, "ms"}, {1e3, "µs"}, {1, "ns"}};

const Unit& UnitFor(int64_t ns) {
  for (const Unit& unit : kUnits) {
    if (static_cast<double>(ns) >= unit.ns) return unit;
  }
  return kUnits[3];
}

}  // namespace

char BoxLetter(BoxKind kind) { return "FBIWOC"[static_cast<int>(kind)]; }

const char* BoxName(BoxKind kind) {
  constexpr const char* kNames[] = {"forward",         "backward",  "input gradient",
                                    "weight gradient", "optimizer", "collective"};
  return kNames[static_cast<int>(kind)];
}

Chart MakeChart(const Timeline& timeline) {
  Chart chart;
  chart.title = absl::StrCat(timeline.name.empty() ? "timeline" : timeline.name,
                             timeline.source == TimelineSource::kMeasured ? ", measured" : ", simulated");
  chart.rows.resize(timeline.ranks);
  std::vector<Chunks> chunks(timeline.ranks);
  for (const Span& span : timeline.spans) {
    if (IsCompute(span.action.kind)) chunks[span.rank.index()].insert({span.action.copy, span.action.stage.value()});
  }
  for (const Chunks& of_rank : chunks) chart.chunks = std::max(chart.chunks, static_cast<int>(of_rank.size()));
  for (const Span& span : timeline.spans) {
    const Action& a = span.action;
    ChartRow& row = chart.rows[span.rank.index()];
    chart.end_ns = std::max(chart.end_ns, span.end_ns);
    if (IsStageTransfer(a.kind)) {
      row.transfers.push_back({IsForwardTransfer(a.kind), IsSend(a.kind), a.stage.value(), a.micro_batch.value(),
                               a.peer.value(), a.copy, span.begin_ns, span.end_ns, span.bytes});
    } else if (const std::optional<BoxKind> kind = BoxKindOf(a.kind)) {
      const int chunk = IsCompute(a.kind) ? ChunkOf(chunks[span.rank.index()], a) : 0;
      const bool pair = (a.flags & kOverlapsNext) != 0;
      row.boxes.push_back(
          {*kind, a.stage.value(), chunk, a.micro_batch.value(), a.copy, pair, span.begin_ns, span.end_ns});
      chart.copies = std::max(chart.copies, a.copy + 1);
    }
  }
  const auto earlier = [](const auto& a, const auto& b) { return a.begin_ns < b.begin_ns; };
  for (ChartRow& row : chart.rows) {
    std::stable_sort(row.boxes.begin(), row.boxes.end(), earlier);
    std::stable_sort(row.transfers.begin(), row.transfers.end(), earlier);
  }
  const TimelineMetrics metrics = Measure(timeline);
  chart.caption = SizeText(timeline) + BubbleText(metrics) + MemoryText(metrics, chart);
  return chart;
}

Legend MakeLegend(const std::vector<Chart>& charts) {
  Legend legend;
  bool copies_only = true;  // the chunks of every rank are copies of one stage's
  for (const Chart& chart : charts) {
    legend.chunks = std::max(legend.chunks, chart.chunks);
    copies_only = copies_only && chart.chunks == chart.copies;
    for (const ChartRow& row : chart.rows) {
      for (const Box& box : row.boxes) {
        legend.kinds[static_cast<size_t>(box.kind)] |= box.end_ns > box.begin_ns;
        legend.pairs |= box.pair;
      }
    }
  }
  if (legend.chunks == 2) legend.shades = copies_only ? ", copies 0 and 1" : ", chunks 0 and 1";
  if (legend.chunks > 2) legend.shades = absl::StrCat(", chunks 0 to ", legend.chunks - 1);
  return legend;
}

std::string Color::Hex() const { return absl::StrFormat("#%02x%02x%02x", red, green, blue); }

bool Color::dark() const { return 0.299 * red + 0.587 * green + 0.114 * blue < 120; }

Color BoxColor(BoxKind kind, int chunk, int chunks) {
  // Told apart by lightness too, for those who don't tell the hues apart. The hues are those that readers know from the
  // papers and from PyTorch's pictures: blue F, orange B, teal I, green W.
  constexpr Color kColors[] = {{47, 111, 191}, {240, 157, 62},  {43, 168, 160},
                               {126, 184, 77}, {142, 107, 191}, {154, 160, 170}};
  const Color full = kColors[static_cast<int>(kind)];
  const double white = chunks > 1 ? 0.5 * chunk / (chunks - 1) : 0;
  const auto mix = [&](uint8_t value) { return static_cast<uint8_t>(std::lround(value + (255 - value) * white)); };
  return {mix(full.red), mix(full.green), mix(full.blue)};
}

std::string FormatNanoseconds(int64_t ns) {
  if (ns < 0) return absl::StrCat("-", FormatNanoseconds(-ns));
  const Unit& unit = UnitFor(ns);
  const double value = static_cast<double>(ns) / unit.ns;
  return absl::StrCat(Trimmed(value, value < 10 ? 3 : value < 100 ? 2 : value < 1000 ? 1 : 0), " ", unit.name);
}

std::string FormatBytes(int64_t bytes) {
  constexpr const char* kNames[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; std::abs(value) >= 1024 && unit + 1 < std::size(kNames); ++unit) value /= 1024;
  return absl::StrCat(Trimmed(value, value < 10 ? 2 : 1), " ", kNames[unit]);
}

std::vector<AxisMark> AxisMarks(int64_t end_ns, int most) {
  std::vector<AxisMark> marks;
  const double raw = static_cast<double>(std::max<int64_t>(end_ns, 1)) / std::max(most, 1);
  const double power = std::pow(10, std::floor(std::log10(raw)));
  double distance = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0}) {
    if (factor * power >= raw) distance = factor * power;
  }
  const auto step = std::max<int64_t>(1, std::llround(distance));
  const Unit& unit = UnitFor(std::max<int64_t>(end_ns, 1));
  for (int64_t time = 0; time <= end_ns; time += step) {
    marks.push_back({time, absl::StrCat(Trimmed(static_cast<double>(time) / unit.ns, 4), " ", unit.name)});
  }
  return marks;
}

}  // namespace sluice
