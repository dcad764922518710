// The eight steps that DualPipe and DualPipeV share (github.com/deepseek-ai/DualPipe).
#pragma once

#include <vector>

#include "scheduler/generators/common.h"

namespace sluice {

struct DualPipeShape {
  int half;           // ranks from an end of the V to its turning point
  int distance;       // of this rank from the end, 0 ... half-1
  int micro_batches;  // of each side
  bool split_first_pair;
};

// One of the two sides that meet on a rank. The near one enters the pipeline at this rank's end.
struct DualPipeSide {
  StageId stage;
  int copy = 0;
  int first = 0;  // its micro-batches are first, first + 1, ...
};

void DualPipeSteps(const DualPipeShape& shape, const DualPipeSide& near, const DualPipeSide& far,
                   std::vector<Action>& actions);

}  // namespace sluice
