// Interleaved zero bubble (PyTorch's ScheduleInterleavedZeroBubble): interleaved 1F1B with half the warm-up per rank
// and the backward pass split; rank r keeps r weight gradients back. v*p chunks in flight on every rank.
#include <algorithm>

#include "base/status.h"
#include "scheduler/generators/interleaved.h"

namespace sluice {

absl::StatusOr<Schedule> GenerateInterleavedZeroBubble(const GeneratorParams& params) {
  ASSIGN_OR_RETURN(const InterleavedOrder order, MakeInterleavedOrder("interleaved_zb", params));
  const int p = params.ranks, v = params.chunks, total = static_cast<int>(order.steps.size());
  Schedule schedule = EmptySchedule("interleaved_zb", Placement::Loop(p, v), params.micro_batches);
  for (int r = 0; r < p; ++r) {
    auto& actions = schedule.ranks[r];
    int weights = 0;
    const auto backward_stage = [&](int k) { return StageId((v - 1 - order.steps[k].chunk) * p + r); };
    const auto weight_gradient = [&] {
      actions.push_back(WeightGradient(backward_stage(weights), order.steps[weights].micro_batch));
      ++weights;
    };
    const auto forward = [&](int k) {
      actions.push_back(Forward(StageId(order.steps[k].chunk * p + r), order.steps[k].micro_batch));
    };
    const auto backward = [&](int k) {
      actions.push_back(InputGradient(backward_stage(k), order.steps[k].micro_batch));
      if (k >= r) weight_gradient();
    };
    OneForwardOneBackward(std::min(total, (v - 1) * order.group_size + (p - 1 - r)), total, forward, backward);
    while (weights < total) weight_gradient();
  }
  return schedule;
}

}  // namespace sluice
