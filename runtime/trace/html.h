// A timeline as a page of its own, for any browser: zooms and pans, tells an action's facts under the pointer, and
// follows one micro-batch along its way. Nothing is fetched from outside.
#pragma once

#include <string>
#include <vector>

#include "scheduler/timeline.h"

namespace sluice {

// The timelines stand under each other on a common axis. REQUIRES: at least one; spans of ranks in range.
std::string DrawHtml(const std::vector<Timeline>& timelines);

}  // namespace sluice
