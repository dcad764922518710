// The lean model for bare schedules: each rank takes its list in order, as soon as inputs have come.

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "scheduler/action_costs.h"
#include "scheduler/simulate.h"

namespace sluice {
namespace {

class ScheduleRun {
 public:
  ScheduleRun(const Schedule& schedule, const Costs& costs)
      : schedule_(schedule), placement_(schedule.placement), action_costs_(costs) {
    const size_t cells = static_cast<size_t>(placement_.stages()) * placement_.copies() * schedule.micro_batches;
    forward_end_.assign(cells, kNever);
    gradient_end_.assign(cells, kNever);
    next_.resize(schedule.ranks.size());
    free_ns_.resize(schedule.ranks.size());
    waiting_.resize(schedule.ranks.size(), false);
  }

  absl::StatusOr<Timeline> Run() {
    Timeline timeline{.name = schedule_.name,
                      .ranks = placement_.ranks(),
                      .stages = placement_.stages(),
                      .micro_batches = schedule_.micro_batches,
                      .queues = {{QueueKind::kCompute, "compute"}}};
    for (size_t r = 0; r < schedule_.ranks.size(); ++r) work_.push_back(r);
    while (!work_.empty()) {
      const size_t r = work_.back();
      work_.pop_back();
      waiting_[r] = false;
      while (next_[r] < schedule_.ranks[r].size() && RunNext(r, timeline)) {
      }
    }
    for (size_t r = 0; r < schedule_.ranks.size(); ++r) {
      if (next_[r] == schedule_.ranks[r].size()) continue;
      return absl::FailedPreconditionError(absl::StrCat("the schedule does not run to its end: rank ", r, " stands at ",
                                                        ToString(schedule_.ranks[r][next_[r]])));
    }
    return timeline;
  }

 private:
  static constexpr int64_t kNever = -1;

  // Runs the rank's next action or OVERLAP_F_B pair; a pair starts and ends as one. False if its inputs have not ended.
  bool RunNext(size_t r, Timeline& timeline) {
    const auto& list = schedule_.ranks[r];
    size_t end = next_[r] + 1;
    if ((list[next_[r]].flags & kOverlapsNext) && end < list.size()) ++end;
    int64_t begin = free_ns_[r];
    for (size_t k = next_[r]; k < end; ++k) {
      if (!IsCompute(list[k].kind)) continue;
      const int64_t ready = Ready(list[k], r);
      if (ready == kNever) return false;
      begin = std::max(begin, ready);
    }
    free_ns_[r] = begin;
    const size_t first_span = timeline.spans.size();
    for (; next_[r] < end; ++next_[r]) {
      Action action = list[next_[r]];
      if (!IsCompute(action.kind)) continue;
      action.queue = QueueId(0);
      const int64_t start = std::exchange(free_ns_[r], free_ns_[r] + action_costs_.Ns(action));
      timeline.spans.push_back({PipelineRank(static_cast<int>(r)), action, start, free_ns_[r], 0});
    }
    for (size_t k = first_span; k < timeline.spans.size(); ++k) Finish(timeline.spans[k].action, free_ns_[r]);
    return true;
  }

  size_t Key(const Action& a, int stage) const {
    return placement_.Index(StageId(stage), a.copy) * schedule_.micro_batches + a.micro_batch.index();
  }

  // When the output of `neighbour` has come to this rank.
  int64_t Arrival(const Action& a, int neighbour, const std::vector<int64_t>& ends, size_t rank) const {
    const int64_t end = ends[Key(a, neighbour)];
    if (end == kNever || placement_.RankOf(StageId(neighbour), a.copy).index() == rank) return end;
    const bool activation = neighbour < a.stage.value();
    return end + action_costs_.Ns({.kind = activation ? ActionKind::kSendForward : ActionKind::kSendBackward,
                                   .stage = StageId(neighbour)});
  }

  int64_t Ready(const Action& a, size_t rank) const {
    const int s = a.stage.value();
    switch (a.kind) {
      case ActionKind::kForward:
        return s == 0 ? 0 : Arrival(a, s - 1, forward_end_, rank);
      case ActionKind::kBackward:
      case ActionKind::kInputGradient:
        if (s == placement_.stages() - 1 || forward_end_[Key(a, s)] == kNever) return forward_end_[Key(a, s)];
        return Arrival(a, s + 1, gradient_end_, rank);
      default:
        return gradient_end_[Key(a, s)];
    }
  }

  void Finish(const Action& a, int64_t end_ns) {
    const int s = a.stage.value();
    if (a.kind == ActionKind::kWeightGradient) return;
    (a.kind == ActionKind::kForward ? forward_end_ : gradient_end_)[Key(a, s)] = end_ns;
    const int neighbour = a.kind == ActionKind::kForward ? s + 1 : s - 1;
    if (neighbour < 0 || neighbour >= placement_.stages()) return;
    const size_t rank = placement_.RankOf(StageId(neighbour), a.copy).index();
    if (!std::exchange(waiting_[rank], true)) work_.push_back(rank);
  }

  const Schedule& schedule_;
  const Placement& placement_;
  const ActionCosts action_costs_;
  std::vector<int64_t> forward_end_, gradient_end_;  // by Key; of F, and of I or B
  std::vector<size_t> next_;                         // per rank
  std::vector<int64_t> free_ns_;
  std::vector<char> waiting_;  // is in work_
  std::vector<size_t> work_;
};

}  // namespace

absl::StatusOr<Timeline> SimulateSchedule(const Schedule& schedule, const Costs& costs) {
  CHECK_EQ(costs.stages.size(), static_cast<size_t>(schedule.placement.stages()));
  return ScheduleRun(schedule, costs).Run();
}

}  // namespace sluice
