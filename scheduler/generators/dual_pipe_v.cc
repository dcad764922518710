// DualPipeV (DeepSeek's "cut-in-half" DualPipe): two stages per rank placed as a V, forwards of one overlapped with
// backwards of the other. Rank r holds stage a = r and stage b = 2p-1-r. Needs m >= 2p; 2p+1 chunks in flight.
#include "base/status.h"
#include "scheduler/generators/dual_pipe_steps.h"

namespace sluice {

absl::StatusOr<Schedule> GenerateDualPipeV(const GeneratorParams& params) {
  RETURN_IF_ERROR(CheckParams("dual_pipe_v", params, 2));
  const int p = params.ranks, m = params.micro_batches;
  if (m < 2 * p) {
    return absl::InvalidArgumentError(absl::StrCat("dual_pipe_v needs at least 2p = ", 2 * p, " micro-batches, not ", m,
                                                   "; zb_v runs with any number"));
  }
  Schedule schedule = EmptySchedule("dual_pipe_v", Placement::V(p), m);
  for (int r = 0; r < p; ++r) {
    DualPipeSteps({.half = p, .distance = r, .micro_batches = m, .split_first_pair = r == p - 1}, {.stage = StageId(r)},
                  {.stage = StageId(2 * p - 1 - r)}, schedule.ranks[r]);
  }
  return schedule;
}

}  // namespace sluice
