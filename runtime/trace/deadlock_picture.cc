#include "runtime/trace/deadlock_picture.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "runtime/trace/chart.h"
#include "runtime/trace/svg_text.h"

namespace sluice {
namespace {

constexpr double kMargin = 16, kHeading = 46, kRowPitch = 96, kCellHeight = 30, kGap = 6, kLineHeight = 17;
constexpr double kLetter = 7.4;  // width of a letter of the cells' font
constexpr int kNeighbours = 2;   // actions drawn before and behind each that waits
constexpr size_t kLineLetters = 130;

struct Cell {
  int32_t position = 0;  // -1: what is left out
  std::string label;
  double x = 0, width = 0;
};

// Which actions of a rank's list are drawn: those of the circle and their neighbours.
std::set<int32_t> Drawn(const Deadlock& deadlock, PipelineRank rank, int32_t actions) {
  std::set<int32_t> positions;
  for (const Wait& wait : deadlock.circle) {
    for (const ActionPlace& place : {wait.from, wait.via, wait.to}) {
      if (place.rank != rank) continue;
      for (int32_t k = place.position - kNeighbours; k <= place.position + kNeighbours; ++k) {
        if (k >= 0 && k < actions) positions.insert(k);
      }
    }
  }
  return positions;
}

std::vector<Cell> CellsOf(const Program& program, const Deadlock& deadlock, PipelineRank rank, double left) {
  const std::vector<Action>& list = program.ranks[rank.index()];
  std::vector<Cell> cells;
  const auto add = [&](int32_t position, std::string label) {
    const double width = kLetter * static_cast<double>(label.size()) + 14;
    cells.push_back({position, std::move(label), left, width});
    left += width + kGap;
  };
  const auto skip = [&](int32_t count) {
    if (count > 0) add(-1, absl::StrCat(count, " more"));
  };
  int32_t next = 0;
  for (const int32_t k : Drawn(deadlock, rank, static_cast<int32_t>(list.size()))) {
    skip(k - next);
    add(k, ToString(list[k]));
    next = k + 1;
  }
  skip(static_cast<int32_t>(list.size()) - next);
  return cells;
}

std::string CellClass(const Action& action, bool ended) {
  if (ended) return "ended";
  if (IsStageTransfer(action.kind)) {
    return IsForwardTransfer(action.kind) ? "activation" : "gradient";
  }
  return IsCompute(action.kind) ? ActionKindName(action.kind) : "other";
}

// Lines of at most so many letters, broken between words.
std::vector<std::string> Wrapped(const std::string& text) {
  std::vector<std::string> lines = {""};
  for (absl::string_view word : absl::StrSplit(text, ' ')) {
    if (lines.back().size() + word.size() > kLineLetters) lines.emplace_back();
    absl::StrAppend(&lines.back(), lines.back().empty() ? "" : " ", word);
  }
  return lines;
}

class Picture {
 public:
  Picture(const Program& program, const Deadlock& deadlock) : program_(program), deadlock_(deadlock) {
    std::set<int> ranks;
    for (const Wait& wait : deadlock.circle)
      ranks.insert({wait.from.rank.value(), wait.via.rank.value(), wait.to.rank.value()});
    for (const int r : ranks) {
      rows_.emplace_back(PipelineRank(r), CellsOf(program, deadlock, PipelineRank(r), kMargin + 62));
      for (const Cell& cell : rows_.back().second) width_ = std::max(width_, cell.x + cell.width + kMargin);
    }
  }

  std::string Draw() {
    std::string body;
    for (size_t row = 0; row < rows_.size(); ++row) DrawRow(row, body);
    for (size_t i = 0; i < deadlock_.circle.size(); ++i) DrawArrow(i, body);
    double y = kHeading + kRowPitch * static_cast<double>(rows_.size()) + 8;
    for (size_t i = 0; i < deadlock_.circle.size(); ++i) {
      const std::vector<std::string> lines = Wrapped(absl::StrCat(i + 1, ". ", deadlock_.circle[i].text));
      for (const std::string& line : lines) {
        const double indent = &line == &lines.front() ? 0 : 16;
        absl::StrAppend(&body, "<text x=\"", Svg(kMargin + indent), "\" y=\"", Svg(y), "\">", SvgEscaped(line),
                        "</text>\n");
        width_ = std::max(width_, 2 * kMargin + 6.3 * static_cast<double>(line.size()));
        y += kLineHeight;
      }
    }
    const std::string size = absl::StrCat("width=\"", Svg(width_), "\" height=\"", Svg(y), "\"");
    return absl::StrCat("<svg xmlns=\"http://www.w3.org/2000/svg\" ", size, " viewBox=\"0 0 ", Svg(width_), " ", Svg(y),
                        "\" role=\"img\">\n<title>deadlock of ", SvgEscaped(program_.name), "</title>\n<style>",
                        Style(), "</style>\n", kArrowHead, "<rect class=\"page\" ", size, " rx=\"8\"/>\n", Heading(),
                        body, "</svg>\n");
  }

 private:
  static constexpr char kArrowHead[] =
      "<defs><marker id=\"head\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"7\" markerHeight=\"7\" "
      "orient=\"auto\"><path class=\"tip\" d=\"M0 0L10 5L0 10z\"/></marker></defs>\n";

  static std::string Style() {
    std::string style = absl::StrCat(
        kSvgTextStyle,
        ".page{fill:#fff;stroke:#d8dce3}.head{font-size:15px;font-weight:600;fill:#1f2733}"
        ".cell text{text-anchor:middle;font-size:12px;fill:#10151d}.cell rect{stroke:#9aa4b2}"
        ".ended rect{fill:#eceff3;stroke:#d3d8e0}.ended text{fill:#7b8494}.more rect{fill:none;stroke:none}"
        ".more text{fill:#7b8494}.activation rect{fill:#d5e4f7}.gradient rect{fill:#fbe3c4}.other rect{fill:#e3e5e9}"
        ".cell.waits rect{stroke:#c2185b;stroke-width:2.5}.arrow{fill:none;stroke:#c2185b;stroke-width:2}"
        ".tip,.dot{fill:#c2185b}.number{fill:#fff;text-anchor:middle;font-weight:600}");
    constexpr std::pair<ActionKind, BoxKind> kKinds[] = {{ActionKind::kForward, BoxKind::kForward},
                                                         {ActionKind::kBackward, BoxKind::kBackward},
                                                         {ActionKind::kInputGradient, BoxKind::kInputGradient},
                                                         {ActionKind::kWeightGradient, BoxKind::kWeightGradient}};
    for (const auto& [action, box] : kKinds) {
      const Color color = BoxColor(box, 0, 1);
      absl::StrAppend(&style, ".", ActionKindName(action), " rect{fill:", color.Hex(), "}");
      if (color.dark()) absl::StrAppend(&style, ".", ActionKindName(action), " text{fill:#fff}");
    }
    return style;
  }

  std::string Heading() const {
    return absl::StrCat("<text class=\"head\" x=\"", Svg(kMargin), "\" y=\"28\">", SvgEscaped(program_.name),
                        ": a deadlock", deadlock_.merged ? " when all communication of a rank runs in one queue" : "",
                        "</text><text x=\"", Svg(kMargin),
                        "\" y=\"44\">Each rank's list in issue order; grey has ended, ",
                        "an arrow leads from an action that waits to the one that it waits for.</text>\n");
  }

  double RowTop(size_t row) const { return kHeading + kRowPitch * static_cast<double>(row) + 34; }

  bool Waits(PipelineRank rank, int32_t position) const {
    const ActionPlace place{rank, position};
    return std::any_of(deadlock_.circle.begin(), deadlock_.circle.end(),
                       [&](const Wait& wait) { return wait.from == place; });
  }

  void DrawRow(size_t row, std::string& body) const {
    const auto& [rank, cells] = rows_[row];
    const double top = RowTop(row);
    absl::StrAppend(&body, "<text x=\"", Svg(kMargin), "\" y=\"", Svg(top + 20), "\">rank ", rank.value(), "</text>\n");
    for (const Cell& cell : cells) {
      std::string look = "more";
      if (cell.position >= 0) {
        const Action& action = program_.ranks[rank.index()][cell.position];
        look = CellClass(action, deadlock_.ended[rank.index()][cell.position]);
        if (Waits(rank, cell.position)) look += " waits";
      }
      absl::StrAppend(&body, "<g class=\"cell ", look, "\"><rect x=\"", Svg(cell.x), "\" y=\"", Svg(top), "\" width=\"",
                      Svg(cell.width), "\" height=\"", Svg(kCellHeight), "\" rx=\"4\"/><text x=\"",
                      Svg(cell.x + cell.width / 2), "\" y=\"", Svg(top + 19), "\">", SvgEscaped(cell.label),
                      "</text></g>\n");
    }
  }

  struct Spot {
    size_t row = 0;
    double middle = 0;
  };
  Spot SpotOf(const ActionPlace& place) const {
    for (size_t row = 0; row < rows_.size(); ++row) {
      if (rows_[row].first != place.rank) continue;
      for (const Cell& cell : rows_[row].second) {
        if (cell.position == place.position) return {row, cell.x + cell.width / 2};
      }
    }
    return {};
  }

  // Within a row in an arc above it, between rows from edge to edge, down on the left and up on the right of the cells'
  // middle, so that the arrow that comes and the one that goes don't touch.
  void DrawArrow(size_t i, std::string& body) const {
    const Spot from = SpotOf(deadlock_.circle[i].from), to = SpotOf(deadlock_.circle[i].to);
    const bool down = to.row > from.row, across = to.row != from.row;
    const double shift = across ? (down ? -12 : 12) : 0;
    const double x0 = from.middle + shift, x1 = to.middle + shift, middle = (x0 + x1) / 2;
    std::string path;
    double label_y = 0;
    if (!across) {
      const double y = RowTop(from.row), height = std::min(26.0, 10 + std::abs(x1 - x0) / 8);
      path = absl::StrCat("M", Svg(x0), " ", Svg(y), "Q", Svg(middle), " ", Svg(y - 2 * height), " ", Svg(x1), " ",
                          Svg(y));
      label_y = y - height;
    } else {
      const double y0 = RowTop(from.row) + (down ? kCellHeight : 0), y1 = RowTop(to.row) + (down ? 0 : kCellHeight);
      path = absl::StrCat("M", Svg(x0), " ", Svg(y0), "L", Svg(x1), " ", Svg(y1));
      label_y = (y0 + y1) / 2;
    }
    absl::StrAppend(&body, "<path class=\"arrow\" marker-end=\"url(#head)\" d=\"", path,
                    "\"/><circle class=\"dot\" cx=\"", Svg(middle), "\" cy=\"", Svg(label_y),
                    "\" r=\"9\"/><text class=\"number\" x=\"", Svg(middle), "\" y=\"", Svg(label_y + 4), "\">", i + 1,
                    "</text>\n");
  }

  const Program& program_;
  const Deadlock& deadlock_;
  std::vector<std::pair<PipelineRank, std::vector<Cell>>> rows_;
  double width_ = 720;
};

}  // namespace

std::string DrawDeadlock(const Program& program, const Deadlock& deadlock) { return Picture(program, deadlock).Draw(); }

}  // namespace sluice
