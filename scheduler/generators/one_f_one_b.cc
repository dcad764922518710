// 1F1B, PipeDream-flush (Narayanan et al. 2021): rank r runs p-1-r forwards ahead, then one forward and one backward in
// turn, so that it holds at most p-r micro-batches.
#include <algorithm>

#include "base/status.h"
#include "scheduler/generators/common.h"

namespace sluice {

absl::StatusOr<Schedule> Generate1F1B(const GeneratorParams& params) {
  RETURN_IF_ERROR(CheckParams("1f1b", params, 1));
  const int p = params.ranks, m = params.micro_batches;
  Schedule schedule = EmptySchedule("1f1b", Placement::Loop(p, 1), m);
  for (int r = 0; r < p; ++r) {
    auto& actions = schedule.ranks[r];
    OneForwardOneBackward(
        std::min(m, p - 1 - r), m, [&](int i) { actions.push_back(Forward(StageId(r), MicroBatch(i))); },
        [&](int i) { actions.push_back(Backward(StageId(r), MicroBatch(i))); });
  }
  return schedule;
}

}  // namespace sluice
