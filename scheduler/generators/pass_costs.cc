#include "scheduler/generators/pass_costs.h"

#include <algorithm>

#include "base/check.h"
#include "scheduler/simulate.h"

namespace sluice {

int64_t SpanOf(const Schedule& schedule, const std::vector<PassCosts>& costs) {
  // A byte takes a nanosecond, so that each stage's messages take their own time.
  Costs all{.transfer_bytes_per_second = 1e9};
  for (const PassCosts& c : costs) {
    all.stages.push_back({.forward_ns = c.forward_ns,
                          .input_gradient_ns = c.input_gradient_ns,
                          .weight_gradient_ns = c.weight_gradient_ns,
                          .backward_ns = c.input_gradient_ns + c.weight_gradient_ns,
                          .activation_bytes = c.transfer_ns,
                          .gradient_bytes = c.transfer_ns});
  }
  const absl::StatusOr<Timeline> timeline = SimulateSchedule(schedule, all);
  CHECK(timeline.ok()) << timeline.status();
  return Measure(*timeline).span_ns;
}

std::vector<int64_t> PeakBytesOf(const Schedule& schedule, const std::vector<PassCosts>& costs) {
  std::vector<int64_t> peaks;
  for (const std::vector<Action>& actions : schedule.ranks) {
    int64_t held = 0, peak = 0;
    for (const Action& action : actions) {
      const PassCosts& c = costs[action.stage.index()];
      if (action.kind == ActionKind::kForward) held += c.forward_bytes;
      if (action.kind == ActionKind::kInputGradient) held -= c.forward_bytes - c.weight_bytes;
      if (action.kind == ActionKind::kWeightGradient) held -= c.weight_bytes;
      if (action.kind == ActionKind::kBackward) held -= c.forward_bytes;
      peak = std::max(peak, held);
    }
    peaks.push_back(peak);
  }
  return peaks;
}

std::vector<PassCosts> WithMeanTimes(std::vector<PassCosts> costs) {
  const auto stages = static_cast<int64_t>(costs.size());
  for (const auto time : {&PassCosts::forward_ns, &PassCosts::input_gradient_ns, &PassCosts::weight_gradient_ns,
                          &PassCosts::transfer_ns}) {
    int64_t sum = 0;
    for (const PassCosts& c : costs) sum += c.*time;
    for (PassCosts& c : costs) c.*time = sum / stages;
  }
  return costs;
}

}  // namespace sluice
