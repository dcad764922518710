// Looped breadth-first (Lamy-Poirier 2022): all micro-batches through a chunk before the next chunk begins, so that
// each stage's parameters are needed in one stretch per pass. Backward runs in the order of the micro-batches, which
// keeps weight gradients ascending; PyTorch reverses it, with the same times.
#include "base/status.h"
#include "scheduler/generators/common.h"

namespace sluice {

absl::StatusOr<Schedule> GenerateLoopedBFS(const GeneratorParams& params) {
  RETURN_IF_ERROR(CheckParams("looped_bfs", params, 0));
  const int p = params.ranks, v = params.chunks, m = params.micro_batches;
  Schedule schedule = EmptySchedule("looped_bfs", Placement::Loop(p, v), m);
  for (int r = 0; r < p; ++r) {
    auto& actions = schedule.ranks[r];
    for (int chunk = 0; chunk < v; ++chunk) {
      for (int i = 0; i < m; ++i) actions.push_back(Forward(StageId(chunk * p + r), MicroBatch(i)));
    }
    for (int chunk = v - 1; chunk >= 0; --chunk) {
      for (int i = 0; i < m; ++i) actions.push_back(Backward(StageId(chunk * p + r), MicroBatch(i)));
    }
  }
  return schedule;
}

}  // namespace sluice
