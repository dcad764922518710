// Interleaved 1F1B (Narayanan et al. 2021): v stages per rank, 1F1B over the m*v virtual steps. The bubble shrinks to
// (p-1)/v passes, for v times the communication.
#include <algorithm>

#include "base/status.h"
#include "scheduler/generators/interleaved.h"

namespace sluice {

absl::StatusOr<Schedule> GenerateInterleaved1F1B(const GeneratorParams& params) {
  ASSIGN_OR_RETURN(const InterleavedOrder order, MakeInterleavedOrder("interleaved_1f1b", params));
  const int p = params.ranks, v = params.chunks, total = static_cast<int>(order.steps.size());
  Schedule schedule = EmptySchedule("interleaved_1f1b", Placement::Loop(p, v), params.micro_batches);
  for (int r = 0; r < p; ++r) {
    auto& actions = schedule.ranks[r];
    const auto forward = [&](int k) {
      actions.push_back(Forward(StageId(order.steps[k].chunk * p + r), order.steps[k].micro_batch));
    };
    const auto backward = [&](int k) {
      actions.push_back(Backward(StageId((v - 1 - order.steps[k].chunk) * p + r), order.steps[k].micro_batch));
    };
    OneForwardOneBackward(std::min(total, (v - 1) * order.group_size + 2 * (p - 1 - r)), total, forward, backward);
  }
  return schedule;
}

}  // namespace sluice
