// ZB-V (Qi et al. 2024; PyTorch's ScheduleZBVZeroBubble): two stages per rank, down and up again, so that rank r holds
// stage a = r and stage b = 2p-1-r. The handcrafted order has no bubble in span when F = I = W, with 1F1B's memory;
// where costs or a cap are given, the better of it and of what the heuristic over costs finds.
#include <algorithm>
#include <functional>
#include <limits>
#include <utility>

#include "base/status.h"
#include "scheduler/generators/common.h"
#include "scheduler/generators/pass_costs.h"
#include "scheduler/generators/zb_v_heuristic.h"

namespace sluice {
namespace {

// The passes of one stage, each numbered by a counter; numbers beyond the last micro-batch are left out.
struct StageEmitter {
  std::vector<Action>& actions;
  StageId stage;
  int micro_batches;
  int forwards = 0, inputs = 0, weights = 0;

  void F() { Emit(Forward(stage, MicroBatch(forwards++))); }
  void I() { Emit(InputGradient(stage, MicroBatch(inputs++))); }
  void W() { Emit(WeightGradient(stage, MicroBatch(weights++))); }
  void IW() { I(), W(); }

 private:
  void Emit(const Action& action) {
    if (action.micro_batch.value() < micro_batches) actions.push_back(action);
  }
};

Schedule Handcrafted(const GeneratorParams& params) {
  const int p = params.ranks, m = params.micro_batches, padded = std::max(m, 2 * p - 1);
  Schedule schedule = EmptySchedule("zb_v", Placement::V(p), m);
  for (int r = 0; r < p; ++r) {
    StageEmitter a{schedule.ranks[r], StageId(r), m}, b{schedule.ranks[r], StageId(2 * p - 1 - r), m};
    // Warm-up.
    for (int k = 0; k < 2 * (p - r) - 1; ++k) a.F();
    for (int k = 0; k < r; ++k) b.F(), a.F();
    for (int k = 0; k < p - r; ++k) b.F(), b.IW();
    // Steady state.
    while (b.forwards < a.forwards || a.forwards < padded) {
      if (a.forwards < padded) a.F();
      a.IW();
      b.F();
      b.IW();
    }
    // Cool-down.
    for (int k = 0; k < r; ++k) a.I(), b.I();
    for (int k = 0; k < p - r; ++k) a.IW();
    while (b.weights < b.inputs) b.W();
    while (a.weights < a.inputs) a.W();
  }
  return schedule;
}

// Whether each rank keeps to its cap.
bool Fits(const Schedule& schedule, const std::vector<PassCosts>& costs, const std::vector<int64_t>& caps) {
  const std::vector<int64_t> peaks = PeakBytesOf(schedule, costs);
  return std::equal(peaks.begin(), peaks.end(), caps.begin(), std::less_equal<>());
}

// The cap of each rank in bytes. Without one: what 1F1B holds, and what the handcrafted order needs where stages a and
// b differ.
std::vector<int64_t> Caps(const GeneratorParams& params, const std::vector<PassCosts>& costs,
                          const Schedule& handcrafted) {
  const double cap = InFlightCap(params);
  std::vector<int64_t> caps = PeakBytesOf(handcrafted, costs);
  for (int r = 0; r < params.ranks; ++r) {
    const int64_t micro_batch = costs[r].forward_bytes + costs[2 * params.ranks - 1 - r].forward_bytes;
    const auto bytes = static_cast<int64_t>(cap * static_cast<double>(micro_batch));
    caps[r] = params.in_flight_cap > 0 ? bytes : std::max(caps[r], bytes);
  }
  return caps;
}

}  // namespace

absl::StatusOr<Schedule> GenerateZBV(const GeneratorParams& params) {
  RETURN_IF_ERROR(CheckParams("zb_v", params, 2));
  RETURN_IF_ERROR(CheckCap("zb_v", params));
  const int p = params.ranks, m = params.micro_batches;
  ASSIGN_OR_RETURN(const std::vector<PassCosts> costs, CostsOfStages(params.costs, 2 * p));
  Schedule best = Handcrafted(params);
  if (params.costs.empty() && params.in_flight_cap == 0 && m >= 2 * p - 1) return best;  // no bubble in span
  const std::vector<int64_t> caps = Caps(params, costs, best);
  const bool fits = Fits(best, costs, caps);
  int64_t best_span = fits ? SpanOf(best, costs) : std::numeric_limits<int64_t>::max();
  const auto keep_best = [&](std::vector<Schedule> candidates) {
    for (Schedule& candidate : candidates) {
      const int64_t span = SpanOf(candidate, costs);
      if (span >= best_span) continue;
      best_span = span;
      best = std::move(candidate);
    }
  };
  keep_best(ZBVFromCosts(costs, caps, m));
  const std::vector<PassCosts> mean = WithMeanTimes(costs);
  if (mean != costs) keep_best(ZBVFromCosts(mean, caps, m));
  return best;
}

}  // namespace sluice
