// Hanayo's waves (Liu et al. 2023): v = 2w stages per rank placed as w waves, one copy of the model. Each rank does
// what is ready, backward passes first, then the oldest micro-batch; the order is that of B taking twice as long as F.
#include <algorithm>
#include <functional>
#include <queue>
#include <set>
#include <tuple>

#include "base/status.h"
#include "scheduler/generators/common.h"

namespace sluice {
namespace {

// List scheduling in virtual time.
class WaveScheduler {
 public:
  explicit WaveScheduler(Schedule& schedule)
      : schedule_(schedule), placement_(schedule.placement), ready_(placement_.ranks()), busy_(placement_.ranks()) {}

  void Run() {
    for (int i = 0; i < schedule_.micro_batches; ++i) MakeReady(Forward(StageId(0), MicroBatch(i)));
    for (int r = 0; r < placement_.ranks(); ++r) Start(r, 0);
    while (!running_.empty()) {
      const int64_t now = running_.top().time;
      std::vector<int> ended;
      for (; !running_.empty() && running_.top().time == now; running_.pop()) {
        ended.push_back(running_.top().rank);
        Pass(running_.top().action);
        busy_[ended.back()] = false;
      }
      for (int r = 0; r < placement_.ranks(); ++r) Start(r, now);
    }
  }

 private:
  // Forwards after backwards, then by micro-batch; of one micro-batch the stage nearest to the pipeline's end first.
  using Priority = std::tuple<bool, int, int>;
  struct Running {
    int64_t time;
    int rank;
    Action action;
    bool operator>(const Running& other) const { return std::pair(time, rank) > std::pair(other.time, other.rank); }
  };

  void MakeReady(const Action& a) {
    const bool forward = a.kind == ActionKind::kForward;
    ready_[placement_.RankOf(a.stage).index()].insert({forward, a.micro_batch.value(), -a.stage.value()});
  }
  void Start(int r, int64_t now) {
    if (busy_[r] || ready_[r].empty()) return;
    const auto [forward, i, stage] = *ready_[r].begin();
    ready_[r].erase(ready_[r].begin());
    busy_[r] = true;
    const Action action = forward ? Forward(StageId(-stage), MicroBatch(i)) : Backward(StageId(-stage), MicroBatch(i));
    schedule_.ranks[r].push_back(action);
    running_.push({now + (forward ? 1 : 2), r, action});
  }
  // What an ended pass makes ready: the next stage's forward, at the end of the pipeline the backward, then back.
  void Pass(const Action& a) {
    if (a.kind == ActionKind::kBackward) {
      if (a.stage.value() > 0) MakeReady(Backward(StageId(a.stage.value() - 1), a.micro_batch));
    } else if (a.stage.value() + 1 < placement_.stages()) {
      MakeReady(Forward(StageId(a.stage.value() + 1), a.micro_batch));
    } else {
      MakeReady(Backward(a.stage, a.micro_batch));
    }
  }

  Schedule& schedule_;
  const Placement& placement_;
  std::vector<std::set<Priority>> ready_;  // per rank
  std::vector<bool> busy_;
  std::priority_queue<Running, std::vector<Running>, std::greater<>> running_;
};

}  // namespace

absl::StatusOr<Schedule> GenerateHanayo(const GeneratorParams& params) {
  RETURN_IF_ERROR(CheckParams("hanayo", params, 0));
  if (params.chunks != 1 && params.chunks % 2 != 0) {
    return absl::InvalidArgumentError(absl::StrCat("hanayo has two stages per rank and wave, not ", params.chunks,
                                                   " in all: ", HowToSetChunks(params.chunks + 1)));
  }
  const int waves = std::max(1, params.chunks / 2);
  Schedule schedule = EmptySchedule("hanayo", Placement::Wave(params.ranks, waves), params.micro_batches);
  WaveScheduler(schedule).Run();
  return schedule;
}

}  // namespace sluice
