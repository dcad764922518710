#include "runtime/trace/curve_svg.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace sluice {
namespace {

constexpr double kWidth = 900, kHeight = 520;
constexpr double kLeft = 64, kRight = 24, kTop = 74, kBottom = 60;
constexpr double kLetter = 6.4, kLine = 13.0;  // of the labels: about
const char* const kLineColors[] = {"#1c5fae", "#7a8599", "#b5651d", "#2e7d4f"};

std::string Escaped(const std::string& text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

// 1, 2 or 5 times a power of ten: at most `most` steps up to `end`.
double RoundStep(double end, int most) {
  const double least = end / most;
  const double power = std::pow(10, std::floor(std::log10(least)));
  for (double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= least) return factor * power;
  }
  return 10 * power;
}

class Picture {
 public:
  explicit Picture(const CurvePicture& picture) : picture_(picture) {
    double y = 0;
    for (const CurveLine& line : picture.lines) {
      for (const CurvePoint& point : line.points) x_end_ = std::max(x_end_, point.x), y = std::max(y, point.y);
    }
    for (const CurveMark& mark : picture.marks) x_end_ = std::max(x_end_, mark.point.x), y = std::max(y, mark.point.y);
    if (x_end_ <= 0) x_end_ = 1;
    x_end_ *= 1.02;
    y_end_ = picture.y_max > 0 ? picture.y_max : (y > 0 ? 1.05 * y : 1);
  }

  std::string Draw() {
    std::string body;
    DrawAxes(body);
    for (size_t k = 0; k < picture_.lines.size(); ++k) DrawLine(picture_.lines[k], k, body);
    DrawMarks(body);
    return absl::StrCat("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"", kWidth, "\" height=\"", kHeight,
                        "\" viewBox=\"0 0 ", kWidth, " ", kHeight, "\" role=\"img\">\n<title>", Escaped(picture_.title),
                        "</title>\n<style>", kStyle, "</style>\n<rect class=\"page\" width=\"", kWidth, "\" height=\"",
                        kHeight, "\" rx=\"8\"/>\n", body, "</svg>\n");
  }

 private:
  static constexpr char kStyle[] =
      "text{font-family:system-ui,-apple-system,'Segoe UI','DejaVu Sans',Arial,sans-serif;font-size:11px;fill:#3b4252}"
      ".page{fill:#fff;stroke:#d8dce3}.grid{stroke:#e3e7ee;stroke-width:1}.axis{stroke:#8a93a5;stroke-width:1}"
      ".head{font-size:15px;font-weight:600;fill:#1f2733}.fact{font-size:12px}.end{text-anchor:end}"
      ".mid{text-anchor:middle}.line{fill:none;stroke-width:2}.mark{fill:#b5651d;stroke:#fff;stroke-width:1}"
      ".lead{stroke:#b9a58f;stroke-width:1}";

  struct Box {
    double left, top, right, bottom;
    bool Meets(const Box& other) const {
      return left < other.right && other.left < right && top < other.bottom && other.top < bottom;
    }
  };

  double X(double x) const { return kLeft + (kWidth - kLeft - kRight) * x / x_end_; }
  double Y(double y) const { return kHeight - kBottom - (kHeight - kTop - kBottom) * std::min(y, y_end_) / y_end_; }
  static std::string Pixels(double value) { return absl::StrFormat("%.1f", value); }

  static void Text(double x, double y, absl::string_view style, const std::string& text, std::string& body) {
    absl::StrAppend(&body, "<text class=\"", style, "\" x=\"", Pixels(x), "\" y=\"", Pixels(y), "\">", Escaped(text),
                    "</text>\n");
  }
  static void Segment(double x1, double y1, double x2, double y2, absl::string_view style, std::string& body) {
    absl::StrAppend(&body, "<line class=\"", style, "\" x1=\"", Pixels(x1), "\" y1=\"", Pixels(y1), "\" x2=\"",
                    Pixels(x2), "\" y2=\"", Pixels(y2), "\"/>\n");
  }

  void DrawAxes(std::string& body) const {
    Text(16, 26, "head", picture_.title, body);
    Text(16, 46, "fact", picture_.caption, body);
    const double y_step = RoundStep(y_end_, 8), x_step = RoundStep(x_end_, 12);
    for (int k = 0; k * y_step <= y_end_ * (1 + 1e-9); ++k) {
      Segment(kLeft, Y(k * y_step), kWidth - kRight, Y(k * y_step), k == 0 ? "axis" : "grid", body);
      Text(kLeft - 6, Y(k * y_step) + 4, "end", absl::StrFormat("%.6g", k * y_step), body);
    }
    for (int k = 0; k * x_step <= x_end_ * (1 + 1e-9); ++k) {
      Segment(X(k * x_step), kHeight - kBottom, X(k * x_step), kHeight - kBottom + 4, "axis", body);
      Text(X(k * x_step), kHeight - kBottom + 17, "mid", absl::StrFormat("%.6g", k * x_step), body);
    }
    Text(kLeft, kTop - 8, "fact", picture_.y_name, body);
    Text((kLeft + kWidth - kRight) / 2, kHeight - kBottom + 34, "mid fact", picture_.x_name, body);
    double x = kLeft;
    for (size_t k = 0; k < picture_.lines.size(); ++k) {
      const CurveLine& line = picture_.lines[k];
      absl::StrAppend(&body, "<line x1=\"", x, "\" y1=\"", kHeight - 12, "\" x2=\"", x + 24, "\" y2=\"", kHeight - 12,
                      "\" ", Stroke(line, k), "/>\n");
      Text(x + 30, kHeight - 8, "fact", line.name, body);
      x += 60 + kLetter * 1.1 * static_cast<double>(line.name.size());
    }
  }

  static std::string Stroke(const CurveLine& line, size_t k) {
    return absl::StrCat("class=\"line\" stroke=\"", kLineColors[k % std::size(kLineColors)], "\"",
                        line.style == CurveStyle::kDashedSteps ? " stroke-dasharray=\"6 4\"" : "");
  }

  void DrawLine(const CurveLine& line, size_t k, std::string& body) const {
    std::string path;
    for (const CurvePoint& point : line.points) {
      absl::StrAppend(&path, path.empty() ? "M" : "H", Pixels(X(point.x)), path.empty() ? " " : "V",
                      Pixels(Y(point.y)));
    }
    absl::StrAppend(&path, "H", Pixels(kWidth - kRight));
    absl::StrAppend(&body, "<path ", Stroke(line, k), " d=\"", path, "\"/>\n");
  }

  // Each name at the first place round its mark, and then further away, that no other name or mark has.
  void DrawMarks(std::string& body) const {
    std::vector<Box> taken;
    std::string names;
    int above = 0;
    for (const CurveMark& mark : picture_.marks) {
      const double x = X(mark.point.x), y = Y(mark.point.y);
      if (mark.point.y <= y_end_) taken.push_back({x - 5, y - 5, x + 5, y + 5});
      above += mark.point.y > y_end_;
    }
    for (const CurveLine& line : picture_.lines) TakeSteps(line, taken);
    for (const CurveMark& mark : picture_.marks) {
      if (mark.point.y > y_end_) continue;
      const double x = X(mark.point.x), y = Y(mark.point.y);
      absl::StrAppend(&body, "<circle class=\"mark\" cx=\"", Pixels(x), "\" cy=\"", Pixels(y), "\" r=\"4.5\"/>\n");
      const Box box = PlaceFor(x, y, kLetter * static_cast<double>(mark.name.size()), taken);
      if (std::abs(box.bottom - y) > 20) Segment(x, y, box.left, box.bottom - 4, "lead", body);
      Text(box.left, box.bottom - 3, "", mark.name, names);
      taken.push_back(box);
    }
    body += names;
    if (above > 0) {
      Text(kWidth - kRight, kTop - 8, "end", absl::StrCat(above, " generator runs lie above the picture"), body);
    }
  }
  void TakeSteps(const CurveLine& line, std::vector<Box>& taken) const {
    for (size_t k = 0; k < line.points.size(); ++k) {
      const double y = Y(line.points[k].y), left = X(line.points[k].x);
      const bool last = k + 1 == line.points.size();
      taken.push_back({left, y - 1, last ? kWidth - kRight : X(line.points[k + 1].x), y + 1});
      if (k > 0) taken.push_back({left - 1, Y(line.points[k - 1].y), left + 1, y});
    }
  }
  static Box PlaceFor(double x, double y, double width, const std::vector<Box>& taken) {
    Box box{};
    for (int k = 0; k < 40; ++k) {
      const double down = (k % 2 == 0 ? -1 : 1) * kLine * (k / 4);
      const double left = k % 4 < 2 ? x + 7 : x - 7 - width;
      box = {left, y - kLine / 2 + down, left + width, y + kLine / 2 + down};
      const bool inside = box.left > kLeft && box.right < kWidth && box.top > kTop && box.bottom < kHeight - kBottom;
      if (inside && std::none_of(taken.begin(), taken.end(), [&](const Box& other) { return box.Meets(other); })) break;
    }
    return box;
  }

  const CurvePicture& picture_;
  double x_end_ = 0, y_end_ = 0;
};

}  // namespace

std::string DrawCurves(const CurvePicture& picture) { return Picture(picture).Draw(); }

}  // namespace sluice
