#include "runtime/trace/text_chart.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "runtime/trace/chart.h"

namespace sluice {
namespace {

constexpr int kIdle = -1;
constexpr char kFill[] = {'-', '=', '~', '.', '+', ':'};  // behind a box's label, by BoxKind

// Columns that a text takes; the bytes that continue a UTF-8 character take none.
int Columns(absl::string_view text) {
  return static_cast<int>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

class TextDrawing {
 public:
  TextDrawing(const std::vector<Timeline>& timelines, const TextChartOptions& options) : colors_(options.colors) {
    size_t rows = 1;
    for (const Timeline& timeline : timelines) {
      charts_.push_back(MakeChart(timeline));
      end_ns_ = std::max(end_ns_, charts_.back().end_ns);
      rows = std::max(rows, charts_.back().rows.size());
    }
    digits_ = static_cast<int>(absl::StrCat(rows - 1).size());
    plot_ = std::max(options.width, 40) - digits_ - 6;
  }

  std::string Draw() const {
    std::string out;
    for (const Chart& chart : charts_) {
      absl::StrAppend(&out, chart.title, ": ", chart.caption, "\n");
      for (size_t r = 0; r < chart.rows.size(); ++r) {
        absl::StrAppendFormat(&out, "rank %*d ", digits_, r);
        DrawRow(chart.rows[r], chart.chunks, out);
        out.push_back('\n');
      }
    }
    DrawAxis(out);
    DrawLegend(out);
    return out;
  }

 private:
  double Column(int64_t ns) const {
    return plot_ * static_cast<double>(ns) / static_cast<double>(std::max<int64_t>(end_ns_, 1));
  }

  // The box that fills most of each column, or kIdle where more of it is idle than in any box.
  std::vector<int> Winners(const ChartRow& row) const {
    std::vector<int> winners(plot_, kIdle);
    std::vector<double> most(plot_, 0), busy(plot_, 0);
    for (size_t i = 0; i < row.boxes.size(); ++i) {
      const double begin = std::max(Column(row.boxes[i].begin_ns), 0.0), end = Column(row.boxes[i].end_ns);
      for (int c = static_cast<int>(begin); c < plot_ && c < end; ++c) {
        const double share = std::min(end, c + 1.0) - std::max(begin, static_cast<double>(c));
        busy[c] += share;
        if (share <= most[c] + 1e-9) continue;
        most[c] = share;
        winners[c] = static_cast<int>(i);
      }
    }
    for (int c = 0; c < plot_; ++c) {
      if (1 - busy[c] > std::max(most[c], 0.5)) winners[c] = kIdle;
    }
    return winners;
  }

  void DrawRow(const ChartRow& row, int chunks, std::string& out) const {
    const std::vector<int> winners = Winners(row);
    for (int begin = 0; begin < plot_;) {
      int end = begin + 1;
      while (end < plot_ && winners[end] == winners[begin]) ++end;
      if (winners[begin] == kIdle) {
        // No spaces at a line's end: they only get in the way when it is copied.
        if (end < plot_) out.append(end - begin, ' ');
      } else {
        DrawBox(row.boxes[winners[begin]], chunks, end - begin, out);
      }
      begin = end;
    }
  }

  void DrawBox(const Box& box, int chunks, int width, std::string& out) const {
    const auto room = static_cast<size_t>(width);
    const std::string number = box.micro_batch >= 0 ? absl::StrCat(box.micro_batch) : "";
    if (colors_ == TextColors::kNone) {
      std::string text = absl::StrCat(std::string(1, BoxLetter(box.kind)), number);
      if (text.size() > room) text.resize(1);
      text.append(room - text.size(), kFill[static_cast<int>(box.kind)]);
      out.append(text);
      return;
    }
    const Color color = BoxColor(box.kind, box.chunk, chunks);
    std::string text = number.size() <= room ? number : "";
    text.append(room - text.size(), ' ');
    absl::StrAppendFormat(&out, "\033[48;2;%d;%d;%dm\033[38;2;%sm%s\033[0m", color.red, color.green, color.blue,
                          color.dark() ? "255;255;255" : "16;21;29", text);
  }

  void DrawAxis(std::string& out) const {
    std::string line;
    for (const AxisMark& mark : AxisMarks(end_ns_, std::max(plot_ / 14, 1))) {
      const int column = digits_ + 6 + static_cast<int>(Column(mark.time_ns));
      const std::string text = absl::StrCat("|", mark.label);
      if (column + Columns(text) > digits_ + 6 + plot_) break;
      line.append(std::max(column - Columns(line), 0), ' ');
      line.append(text);
    }
    absl::StrAppend(&out, line, "\n");
  }

  void DrawLegend(std::string& out) const {
    const Legend legend = MakeLegend(charts_);
    for (int i = 0; i < kBoxKinds; ++i) {
      const auto kind = static_cast<BoxKind>(i);
      if (!legend.kinds[i]) continue;
      if (colors_ == TextColors::kAnsi) {
        const Color color = BoxColor(kind, 0, 1);
        absl::StrAppendFormat(&out, "\033[48;2;%d;%d;%dm  \033[0m %s  ", color.red, color.green, color.blue,
                              BoxName(kind));
      } else {
        absl::StrAppend(&out, std::string(1, BoxLetter(kind)), " ", BoxName(kind), "  ");
      }
    }
    while (!out.empty() && out.back() == ' ') out.pop_back();
    out.push_back('\n');
  }

  TextColors colors_;
  std::vector<Chart> charts_;
  int64_t end_ns_ = 0;
  int digits_ = 1;  // of the largest rank
  int plot_ = 0;    // columns for time
};

}  // namespace

std::string DrawText(const std::vector<Timeline>& timelines, const TextChartOptions& options) {
  CHECK(!timelines.empty());
  return TextDrawing(timelines, options).Draw();
}

}  // namespace sluice
