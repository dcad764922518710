// A timeline as a picture in the convention of the papers: a row per rank, time to the right, micro-batch numbers in
// the boxes, idle time left empty. The SVG needs nothing from outside and has its own background, so that it reads well
// on light and dark pages.
#pragma once

#include <string>
#include <vector>

#include "scheduler/timeline.h"

namespace sluice {

enum class DrawTransfers : uint8_t { kNo, kYes };  // thin lines under each row: forward, then backward messages

struct SvgOptions {
  int width = 0;  // pixels; 0: from 1200 to 2400, as the number of boxes asks
  DrawTransfers transfers = DrawTransfers::kNo;
};

// The timelines stand under each other on a common axis of time. REQUIRES: at least one; spans of ranks in range.
std::string DrawSvg(const std::vector<Timeline>& timelines, const SvgOptions& options = {});

}  // namespace sluice
