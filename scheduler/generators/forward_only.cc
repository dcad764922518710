// Forward passes only, for evaluation: each rank takes the micro-batches in order.
#include "base/status.h"
#include "scheduler/generators/common.h"

namespace sluice {

absl::StatusOr<Schedule> GenerateForwardOnly(const GeneratorParams& params) {
  RETURN_IF_ERROR(CheckParams("forward_only", params, 0));
  const int p = params.ranks;
  Schedule schedule = EmptySchedule("forward_only", Placement::Loop(p, params.chunks), params.micro_batches);
  schedule.pass = PassKind::kForwardOnly;
  for (int r = 0; r < p; ++r) {
    // With several chunks, groups of p micro-batches keep every rank busy once the first has gone round.
    for (int first = 0; first < params.micro_batches; first += p) {
      for (int chunk = 0; chunk < params.chunks; ++chunk) {
        for (int i = first; i < params.micro_batches && i < first + p; ++i) {
          schedule.ranks[r].push_back(Forward(StageId(chunk * p + r), MicroBatch(i)));
        }
      }
    }
  }
  return schedule;
}

}  // namespace sluice
