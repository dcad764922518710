#include "runtime/trace/svg.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "runtime/trace/chart.h"
#include "runtime/trace/svg_text.h"

namespace sluice {
namespace {

constexpr double kMargin = 16, kAxisHeight = 24, kLegendHeight = 26, kHeadingHeight = 42, kPanelGap = 14;
// A digit of the fonts below is at most this wide, in font sizes.
constexpr double kDigitWidth = 0.6;

// Name of a box's colour class: "f0".
std::string ColorClass(BoxKind kind, int chunk) {
  return absl::StrCat(std::string(1, static_cast<char>(BoxLetter(kind) - 'A' + 'a')), chunk);
}

// Boxes of one colour in one row as one path; neighbours that are too narrow to be seen apart become one box.
class BoxPath {
 public:
  explicit BoxPath(double height) : height_(height) {}

  void Add(double x, double width) {
    if (width < kNarrow && open_ && x - end_ < kNarrow / 2) {
      end_ = std::max(end_, x + width);
      return;
    }
    Close();
    open_ = true;
    begin_ = x;
    end_ = x + width;
    if (width >= kNarrow) Close();
  }

  const std::string& Finish() {
    Close();
    return path_;
  }

 private:
  static constexpr double kNarrow = 1;

  void Close() {
    if (!std::exchange(open_, false)) return;
    // A hair of space between neighbours where there is room for it.
    const double width = end_ - begin_, gap = width > 5 ? 1 : width > 2 ? 0.4 : 0;
    absl::StrAppend(&path_, "M", Svg(begin_), " 0h", Svg(std::max(width - gap, 0.1)), "v", Svg(height_), "H",
                    Svg(begin_), "z");
  }

  double height_;
  std::string path_;
  bool open_ = false;
  double begin_ = 0, end_ = 0;
};

class Drawing {
 public:
  Drawing(const std::vector<Timeline>& timelines, const SvgOptions& options) : options_(options) {
    size_t rows = 1;
    for (const Timeline& timeline : timelines) {
      charts_.push_back(MakeChart(timeline));
      number_digits_ = std::max(number_digits_, absl::StrCat(timeline.micro_batches - 1).size());
      end_ns_ = std::max(end_ns_, charts_.back().end_ns);
      rows = std::max(rows, charts_.back().rows.size());
    }
    width_ = options.width > 0 ? options.width : WidthFor(charts_);
    pitch_ = std::clamp(std::floor(0.53 * width_ / static_cast<double>(rows)), 4.0, 34.0);
    strip_ = options.transfers == DrawTransfers::kYes ? std::max(1.0, std::floor(pitch_ / 8)) : 0;
    box_height_ = pitch_ - 2 * strip_ - (pitch_ >= 14 ? 3 : pitch_ >= 8 ? 2 : 1);
    label_width_ = absl::StrCat("rank ", rows - 1).size() * 6.2 + 8;
    left_ = kMargin + label_width_;
    plot_width_ = std::max(width_ - left_ - kMargin - 14, 50.0);
  }

  std::string Draw() {
    std::string body;
    double y = kMargin;
    for (const Chart& chart : charts_) {
      DrawPanel(chart, y, body);
      y += kHeadingHeight + pitch_ * static_cast<double>(chart.rows.size()) + kAxisHeight + kPanelGap;
    }
    DrawLegend(y, body);
    y += kLegendHeight;
    const std::string height = Svg(y + 4);
    return absl::StrCat(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"", width_, "\" height=\"", height, "\" viewBox=\"0 0 ",
        width_, " ", height, "\" role=\"img\">\n<title>", SvgEscaped(charts_[0].title), "</title>\n<style>", Style(),
        "</style>\n<rect class=\"page\" width=\"", width_, "\" height=\"", height, "\" rx=\"8\"/>\n", body, "</svg>\n");
  }

 private:
  static int WidthFor(const std::vector<Chart>& charts) {
    size_t boxes = 0;  // most in one row
    for (const Chart& chart : charts) {
      for (const ChartRow& row : chart.rows) boxes = std::max(boxes, row.boxes.size());
    }
    return static_cast<int>(std::clamp<size_t>(20 * boxes, 1200, 2400));
  }

  double X(int64_t ns) const {
    return left_ + plot_width_ * static_cast<double>(ns) / static_cast<double>(std::max<int64_t>(end_ns_, 1));
  }

  std::string Style() const {
    std::string style = absl::StrCat(
        kSvgTextStyle,
        ".page{fill:#fff;stroke:#d8dce3}.lane{fill:#f1f3f6}.grid{stroke:#d3d8e0;stroke-width:1}"
        ".head{font-size:15px;font-weight:600;fill:#1f2733}.fact{font-size:12px}"
        ".rank{text-anchor:end}.mark{text-anchor:middle}"
        ".n{text-anchor:middle}.n text{font-size:inherit;fill:#10151d}.l text{fill:#fff}.pair{fill:#10151d}"
        ".tf{fill:#1c4f94}.tb{fill:#b5651d}");
    int chunks = 1;
    for (const Chart& chart : charts_) chunks = std::max(chunks, chart.chunks);
    for (int kind = 0; kind < kBoxKinds; ++kind) {
      for (int chunk = 0; chunk < chunks; ++chunk) {
        absl::StrAppend(&style, ".", ColorClass(BoxKind(kind), chunk),
                        "{fill:", BoxColor(BoxKind(kind), chunk, chunks).Hex(), "}");
      }
    }
    return style;
  }

  void DrawPanel(const Chart& chart, double y, std::string& body) const {
    absl::StrAppend(&body, "<text class=\"head\" x=\"", Svg(kMargin), "\" y=\"", Svg(y + 12), "\">",
                    SvgEscaped(chart.title), "</text>\n<text class=\"fact\" x=\"", Svg(kMargin), "\" y=\"", Svg(y + 30),
                    "\">", SvgEscaped(chart.caption), "</text>\n");
    y += kHeadingHeight;
    const double bottom = y + pitch_ * static_cast<double>(chart.rows.size());
    DrawLanes(chart, y, body);
    DrawAxis(y, bottom, body);
    for (size_t r = 0; r < chart.rows.size(); ++r) {
      DrawRow(chart.rows[r], chart.chunks, y + pitch_ * static_cast<double>(r), body);
    }
  }

  // The empty lanes with their ranks.
  void DrawLanes(const Chart& chart, double y, std::string& body) const {
    const double font = std::clamp(pitch_ - 2, 6.0, 11.0);
    const size_t every = static_cast<size_t>(std::ceil(8 / pitch_));
    for (size_t r = 0; r < chart.rows.size(); ++r) {
      const double top = y + pitch_ * static_cast<double>(r);
      absl::StrAppend(&body, "<rect class=\"lane\" x=\"", Svg(left_), "\" y=\"", Svg(top), "\" width=\"",
                      Svg(plot_width_), "\" height=\"", Svg(box_height_), "\"/>");
      if (r % every == 0) {
        absl::StrAppend(&body, "<text class=\"rank\" style=\"font-size:", Svg(font), "px\" x=\"", Svg(left_ - 8),
                        "\" y=\"", Svg(top + box_height_ / 2 + font * 0.36), "\">rank ", r, "</text>");
      }
      body.push_back('\n');
    }
  }

  void DrawAxis(double top, double bottom, std::string& body) const {
    for (const AxisMark& mark : AxisMarks(end_ns_, static_cast<int>(plot_width_ / 85))) {
      const std::string x = Svg(X(mark.time_ns));
      absl::StrAppend(&body, "<path class=\"grid\" d=\"M", x, " ", Svg(top), "V", Svg(bottom + 4),
                      "\"/><text class=\"mark\" x=\"", x, "\" y=\"", Svg(bottom + 17), "\">", mark.label, "</text>\n");
    }
  }

  void DrawRow(const ChartRow& row, int chunks, double y, std::string& body) const {
    absl::StrAppend(&body, "<g transform=\"translate(0 ", Svg(y), ")\">");
    // Collectives lie below the boxes: waiting for the others is no work.
    std::map<std::pair<bool, std::string>, BoxPath> paths;
    Numbers numbers;
    for (const Box& box : row.boxes) {
      const double x = X(box.begin_ns), width = X(box.end_ns) - x;
      const bool above = box.kind != BoxKind::kCollective;
      paths.try_emplace({above, ColorClass(box.kind, box.chunk)}, box_height_).first->second.Add(x, width);
      if (box.micro_batch >= 0) AddNumber(box, chunks, x, width, numbers);
    }
    for (auto& [name, path] : paths) {
      absl::StrAppend(&body, "<path class=\"", name.second, "\" d=\"", path.Finish(), "\"/>");
    }
    DrawPairs(row, body);
    DrawNumbers(numbers, body);
    if (options_.transfers == DrawTransfers::kYes) DrawTransferStrips(row, body);
    absl::StrAppend(&body, "</g>\n");
  }

  // Numbers of one size and colour in one group.
  using Numbers = std::map<std::pair<bool /*on dark*/, std::string /*font*/>, std::string>;

  void AddNumber(const Box& box, int chunks, double x, double width, Numbers& numbers) const {
    const std::string number = absl::StrCat(box.micro_batch);
    const double room = (width - 2) / (static_cast<double>(std::max(number.size(), number_digits_)) * kDigitWidth);
    const double font = std::min({box_height_ * 0.62, 13.0, room});
    if (font < 5.5) return;
    absl::StrAppend(&numbers[{BoxColor(box.kind, box.chunk, chunks).dark(), absl::StrFormat("%.1f", font)}],
                    "<text x=\"", absl::StrFormat("%.1f", x + (width - 1) / 2), "\">", number, "</text>");
  }

  void DrawNumbers(const Numbers& numbers, std::string& body) const {
    for (const auto& [look, text] : numbers) {
      const double middle = box_height_ / 2 + std::stod(look.second) * 0.36;
      absl::StrAppend(&body, "<g class=\"n", look.first ? " l" : "", "\" style=\"font-size:", look.second,
                      "px\" transform=\"translate(0 ", Svg(middle), ")\">", text, "</g>");
    }
  }

  // A line below the two boxes of each overlapped pair.
  void DrawPairs(const ChartRow& row, std::string& body) const {
    const double height = std::max(1.0, std::floor(pitch_ / 14));
    BoxPath path(height);
    bool any = false;
    for (size_t i = 0; i + 1 < row.boxes.size(); ++i) {
      if (!row.boxes[i].pair) continue;
      const double x = X(row.boxes[i].begin_ns), width = X(row.boxes[i + 1].end_ns) - x;
      const double inset = width > 16 ? 3 : 0;  // so that two pairs in a row stay two
      path.Add(x + inset, width - 2 * inset);
      any = true;
    }
    if (!any) return;
    absl::StrAppend(&body, "<path class=\"pair\" transform=\"translate(0 ", Svg(box_height_ - height), ")\" d=\"",
                    path.Finish(), "\"/>");
  }

  void DrawTransferStrips(const ChartRow& row, std::string& body) const {
    for (const bool forward : {true, false}) {
      BoxPath path(strip_);
      for (const TransferBox& box : row.transfers) {
        if (box.forward == forward) path.Add(X(box.begin_ns), std::max(X(box.end_ns) - X(box.begin_ns), 0.6));
      }
      absl::StrAppend(&body, "<path class=\"", forward ? "tf" : "tb", "\" transform=\"translate(0 ",
                      Svg(box_height_ + (forward ? 0 : strip_)), ")\" d=\"", path.Finish(), "\"/>");
    }
  }

  void DrawLegend(double y, std::string& body) const {
    const Legend legend = MakeLegend(charts_);
    double x = left_;
    const auto square = [&](absl::string_view color_class, double height) {
      absl::StrAppend(&body, "<rect class=\"", color_class, "\" x=\"", Svg(x), "\" y=\"", Svg(y + (12 - height) / 2),
                      "\" width=\"12\" height=\"", Svg(height), "\"/>");
      x += 13;
    };
    const auto label = [&](const std::string& text) {
      absl::StrAppend(&body, "<text x=\"", Svg(x + 4), "\" y=\"", Svg(y + 10), "\">", text, "</text>\n");
      x += 24 + 6.2 * static_cast<double>(text.size());
    };
    for (int kind = 0; kind < kBoxKinds; ++kind) {
      if (!legend.kinds[kind]) continue;
      const bool shaded = legend.chunks > 1 && kind <= static_cast<int>(BoxKind::kWeightGradient);
      for (int chunk = 0; chunk < (shaded ? legend.chunks : 1); ++chunk) square(ColorClass(BoxKind(kind), chunk), 12);
      label(absl::StrCat(BoxName(BoxKind(kind)), shaded ? legend.shades : ""));
    }
    if (legend.pairs) {
      square("pair", 2);
      label("one overlapped pair");
    }
    if (options_.transfers == DrawTransfers::kNo) return;
    square("tf", 3);
    label("activations moving");
    square("tb", 3);
    label("gradients moving");
  }

  SvgOptions options_;
  int width_ = 0;
  std::vector<Chart> charts_;
  int64_t end_ns_ = 0;
  double pitch_ = 0;          // from row to row
  double box_height_ = 0;     // of a box
  size_t number_digits_ = 1;  // of the largest micro-batch: all numbers have one size
  double strip_ = 0;          // height of one of the two lines of transfers
  double label_width_ = 0, left_ = 0, plot_width_ = 0;
};

}  // namespace

std::string DrawSvg(const std::vector<Timeline>& timelines, const SvgOptions& options) {
  CHECK(!timelines.empty());
  return Drawing(timelines, options).Draw();
}

}  // namespace sluice
