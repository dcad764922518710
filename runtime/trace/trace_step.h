// A step of a run as it goes into a trace file.
#pragma once

#include <cstdint>

#include "scheduler/timeline.h"

namespace sluice {

struct TraceStep {
  int64_t step = 0;      // number of the optimizer update
  int64_t begin_ns = 0;  // where the timeline's zero stands on the trace's clock
  Timeline timeline;
};

}  // namespace sluice
