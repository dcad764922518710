// Eager 1F1B (Alpa's "overlap-friendly 1F1B", JaxPP): 1F1B with twice the warm-up, so that in the steady state a
// message has a whole pass's time to travel. Holds at most 2(p-r)-1 micro-batches.
#include <algorithm>

#include "base/status.h"
#include "scheduler/generators/common.h"

namespace sluice {

absl::StatusOr<Schedule> GenerateEager1F1B(const GeneratorParams& params) {
  RETURN_IF_ERROR(CheckParams("eager_1f1b", params, 1));
  const int p = params.ranks, m = params.micro_batches;
  Schedule schedule = EmptySchedule("eager_1f1b", Placement::Loop(p, 1), m);
  for (int r = 0; r < p; ++r) {
    auto& actions = schedule.ranks[r];
    OneForwardOneBackward(
        std::min(m, 2 * (p - 1 - r)), m, [&](int i) { actions.push_back(Forward(StageId(r), MicroBatch(i))); },
        [&](int i) { actions.push_back(Backward(StageId(r), MicroBatch(i))); });
  }
  return schedule;
}

}  // namespace sluice
