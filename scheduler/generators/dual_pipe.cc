// DualPipe (DeepSeek-V3): two copies of the model run against each other, half of the micro-batches each; rank r holds
// stage r of copy 0 and stage p-1-r of copy 1. Needs even p and m, m >= 2p; p+1 micro-batches in flight.
#include <algorithm>
#include <utility>

#include "base/status.h"
#include "scheduler/generators/dual_pipe_steps.h"

namespace sluice {

absl::StatusOr<Schedule> GenerateDualPipe(const GeneratorParams& params) {
  RETURN_IF_ERROR(CheckParams("dual_pipe", params, 1));
  const int p = params.ranks, m = params.micro_batches;
  if (p % 2 != 0 || m % 2 != 0 || m < 2 * p) {
    return absl::InvalidArgumentError(
        absl::StrCat("dual_pipe needs an even number of ranks and of micro-batches, and "
                     "at least 2p = ",
                     2 * p, " of them, not ", p, " and ", m));
  }
  Schedule schedule = EmptySchedule("dual_pipe", Placement::Bidirectional(p), m);
  for (int r = 0; r < p; ++r) {
    // The near copy enters the pipeline on this rank's half.
    DualPipeSide near{.stage = StageId(r), .copy = 0, .first = 0};
    DualPipeSide far{.stage = StageId(p - 1 - r), .copy = 1, .first = m / 2};
    if (r >= p / 2) std::swap(near, far);
    const int distance = std::min(r, p - 1 - r);
    DualPipeSteps(
        {.half = p / 2, .distance = distance, .micro_batches = m / 2, .split_first_pair = distance == p / 2 - 1}, near,
        far, schedule.ranks[r]);
  }
  return schedule;
}

}  // namespace sluice
