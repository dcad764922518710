// Chimera (Li and Hoefler 2021): two copies of the model run against each other, half of the micro-batches each. A unit
// of p micro-batches has a conflict-free place for every pass when F and B take one slot: stage s runs micro-batch k of
// its copy forward in slot s+2k and backward in slot 2p-1-s+2k. Units follow each other every 2p slots, where the next
// one's head falls into the gaps of the last one's tail; the last unit may be shorter.
#include <algorithm>
#include <utility>

#include "base/status.h"
#include "scheduler/generators/common.h"

namespace sluice {

absl::StatusOr<Schedule> GenerateChimera(const GeneratorParams& params) {
  RETURN_IF_ERROR(CheckParams("chimera", params, 1));
  const int p = params.ranks, m = params.micro_batches;
  if (p % 2 != 0 || m % 2 != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "chimera needs an even number of ranks and of micro-batches, half of them for each copy, not ", p, " and ", m));
  }
  Schedule schedule = EmptySchedule("chimera", Placement::Bidirectional(p), m);
  for (int r = 0; r < p; ++r) {
    std::vector<std::pair<int64_t, Action>> slots;
    slots.reserve(static_cast<size_t>(m) * 2);
    for (int copy = 0; copy < 2; ++copy) {
      const int s = copy == 0 ? r : p - 1 - r;
      for (int i = 0; i < m / 2; ++i) {
        const int64_t unit = i / (p / 2), k = i % (p / 2), begin = 2 * p * unit + 2 * k;
        const MicroBatch micro_batch(copy * (m / 2) + i);
        slots.emplace_back(begin + s, Forward(StageId(s), micro_batch, copy));
        slots.emplace_back(begin + 2 * p - 1 - s, Backward(StageId(s), micro_batch, copy));
      }
    }
    std::sort(slots.begin(), slots.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    for (const auto& [slot, action] : slots) schedule.ranks[r].push_back(action);
  }
  return schedule;
}

}  // namespace sluice
