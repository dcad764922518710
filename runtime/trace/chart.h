// What all drawings of a timeline share: boxes in rank rows, the facts for the caption, colours, round axis marks.
// Plain values and pure functions.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "scheduler/timeline.h"

namespace sluice {

enum class BoxKind : uint8_t { kForward, kBackward, kInputGradient, kWeightGradient, kOptimizer, kCollective };
inline constexpr int kBoxKinds = 6;
// "F", "B", "I", "W", "O", "C".
char BoxLetter(BoxKind kind);
// "forward", "backward", ...
const char* BoxName(BoxKind kind);

// A span as it is drawn. One cell of a row.
struct Box {
  BoxKind kind = BoxKind::kForward;
  int stage = -1;
  int chunk = 0;  // of its rank, ascending in (copy, stage)
  int micro_batch = -1;
  int copy = 0;
  bool pair = false;  // with the next box of its row it forms one overlapped pair
  int64_t begin_ns = 0;
  int64_t end_ns = 0;
};

struct TransferBox {
  bool forward = false;  // an activation; else a gradient
  bool send = false;
  int stage = -1;
  int micro_batch = -1;
  int peer = -1;
  int copy = 0;
  int64_t begin_ns = 0;
  int64_t end_ns = 0;
  int64_t bytes = 0;
};

struct ChartRow {
  std::vector<Box> boxes;              // ascending in begin
  std::vector<TransferBox> transfers;  // ascending in begin
};

struct Chart {
  std::string title;           // "1f1b, simulated"
  std::string caption;         // "4 ranks, 8 micro-batches, bubble 27.3 % of the makespan of 33 ms, ..."
  int chunks = 1;              // most on one rank, over all copies of the model
  int copies = 1;              // of the model
  int64_t end_ns = 0;          // of the last span
  std::vector<ChartRow> rows;  // one per rank
};

Chart MakeChart(const Timeline& timeline);

// What a legend says: the kinds of boxes that take any time, by BoxKind, and what their shades mean.
struct Legend {
  std::array<bool, kBoxKinds> kinds = {};
  int chunks = 1;
  std::string shades;  // ", chunks 0 to 1", ", copies 0 and 1" or nothing
  bool pairs = false;
};
Legend MakeLegend(const std::vector<Chart>& charts);

struct Color {
  uint8_t red = 0, green = 0, blue = 0;
  std::string Hex() const;  // "#4c78a8"
  bool dark() const;        // white text reads better on it than black
};
// The first chunk has the full colour, later ones lighter shades.
Color BoxColor(BoxKind kind, int chunk, int chunks);

// "820 ns", "33 ms", "1.25 s"; four digits.
std::string FormatNanoseconds(int64_t ns);
// "512 B", "12.3 MiB".
std::string FormatBytes(int64_t bytes);

// Marks from 0 to end_ns at round distances, at most `most` of them beside the first, with labels in one unit.
struct AxisMark {
  int64_t time_ns = 0;
  std::string label;
};
std::vector<AxisMark> AxisMarks(int64_t end_ns, int most);

}  // namespace sluice
