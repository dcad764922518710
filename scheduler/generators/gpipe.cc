// GPipe (Huang et al. 2019): all forward passes, then all backward passes. Backward runs in the order of the
// micro-batches, as in PyTorch; the paper reverses it.
#include "base/status.h"
#include "scheduler/generators/common.h"

namespace sluice {

absl::StatusOr<Schedule> GenerateGPipe(const GeneratorParams& params) {
  RETURN_IF_ERROR(CheckParams("gpipe", params, 1));
  Schedule schedule = EmptySchedule("gpipe", Placement::Loop(params.ranks, 1), params.micro_batches);
  for (int r = 0; r < params.ranks; ++r) {
    for (int i = 0; i < params.micro_batches; ++i) schedule.ranks[r].push_back(Forward(StageId(r), MicroBatch(i)));
    for (int i = 0; i < params.micro_batches; ++i) schedule.ranks[r].push_back(Backward(StageId(r), MicroBatch(i)));
  }
  return schedule;
}

}  // namespace sluice
