// Decoding: item round * groups + group goes through all stages, and its tokens come back as the group's next round.
#include "absl/strings/str_cat.h"
#include "scheduler/generators/common.h"

namespace sluice {

absl::StatusOr<Schedule> GenerateGeneration(const GenerationParams& params) {
  if (params.ranks < 1 || params.groups < 1 || params.rounds < 1) {
    return absl::InvalidArgumentError(absl::StrCat("generation needs at least one rank, one group and one round, not ",
                                                   params.ranks, ", ", params.groups, " and ", params.rounds));
  }
  const int items = params.groups * params.rounds;
  Schedule schedule = EmptySchedule("generation", Placement::Loop(params.ranks, 1), items);
  schedule.pass = PassKind::kForwardOnly;
  schedule.groups = params.groups;
  for (int r = 0; r < params.ranks; ++r) {
    for (int i = 0; i < items; ++i) schedule.ranks[r].push_back(Forward(StageId(r), MicroBatch(i)));
  }
  return schedule;
}

}  // namespace sluice
