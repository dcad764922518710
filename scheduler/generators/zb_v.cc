// ZB-V, the handcrafted version (Qi et al. 2023; PyTorch's ScheduleZBVZeroBubble): two stages per rank, down and up
// again, so that rank r holds stage a = r and stage b = 2p-1-r. No bubble in span when F = I = W, with 1F1B's memory.
#include <algorithm>

#include "base/status.h"
#include "scheduler/generators/common.h"

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

}  // namespace

absl::StatusOr<Schedule> GenerateZBV(const GeneratorParams& params) {
  RETURN_IF_ERROR(CheckParams("zb_v", params, 2));
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

}  // namespace sluice
