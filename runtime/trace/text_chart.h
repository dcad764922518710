// A timeline in letters, for a terminal: a line per rank that fits a width, time to the right.
//
//   rank 0 F0-F1-F2-F3-      B0====F4-B1====
//   rank 1    F0-F1-F2-   B0====F3-B1====
#pragma once

#include <string>
#include <vector>

#include "scheduler/timeline.h"

namespace sluice {

enum class TextColors { kNone, kAnsi };

struct TextChartOptions {
  int width = 100;  // columns; at least 40 are used
  TextColors colors = TextColors::kNone;
};

// The timelines stand under each other on a common axis. REQUIRES: at least one; spans of ranks in range.
std::string DrawText(const std::vector<Timeline>& timelines, const TextChartOptions& options = {});

}  // namespace sluice
