// An optional pass before all others: UNSHARD and RESHARD as PyTorch places them for sharded parameters
// (reference: its pipeline runtime), with a look-ahead over distinct stages.
#include <algorithm>
#include <map>
#include <utility>

#include "base/check.h"
#include "scheduler/lowering.h"

namespace sluice {
namespace {

using StageCopy = std::pair<StageId, int>;

// One rank's list: which stages come next is known from the places at which each is used.
class UnshardPass {
 public:
  UnshardPass(const std::vector<Action>& list, int active_stages) : list_(list), active_stages_(active_stages) {
    for (size_t k = 0; k < list.size(); ++k) uses_[Of(list[k])].places.push_back(k);
  }

  std::vector<Action> Run() {
    for (size_t k = 0; k < list_.size(); ++k) {
      if (k == 0 || !(list_[k - 1].flags & kOverlapsNext)) MakeRoomFor(k);  // nothing parts a pair
      result_.push_back(list_[k]);
    }
    for (const StageCopy& stage : std::vector<StageCopy>(active_)) Reshard(stage);
    return std::move(result_);
  }

 private:
  // The places at which a stage is used, and how many of them lie behind.
  struct Uses {
    std::vector<size_t> places;
    size_t passed = 0;
  };

  void MakeRoomFor(size_t k) {
    const std::vector<StageCopy> next = Next(k);
    for (const StageCopy& stage : std::vector<StageCopy>(active_)) {
      if (std::find(next.begin(), next.end(), stage) == next.end()) Reshard(stage);
    }
    for (const StageCopy& stage : next) {
      if (std::find(active_.begin(), active_.end(), stage) == active_.end()) Unshard(stage);
    }
  }

  static StageCopy Of(const Action& a) { return {a.stage, a.copy}; }

  // The stages used from place k on, in the order of their next use, at most so many.
  std::vector<StageCopy> Next(size_t k) {
    std::vector<std::pair<size_t, StageCopy>> order;
    for (auto& [stage, uses] : uses_) {
      while (uses.passed < uses.places.size() && uses.places[uses.passed] < k) ++uses.passed;
      if (uses.passed < uses.places.size()) order.emplace_back(uses.places[uses.passed], stage);
    }
    std::sort(order.begin(), order.end());
    std::vector<StageCopy> next;
    for (const auto& [place, stage] : order) {
      if (static_cast<int>(next.size()) < active_stages_) next.push_back(stage);
    }
    return next;
  }

  void Unshard(const StageCopy& stage) {
    active_.push_back(stage);
    Append(ActionKind::kUnshard, stage);
  }
  void Reshard(const StageCopy& stage) {
    active_.erase(std::find(active_.begin(), active_.end(), stage));
    Append(ActionKind::kReshard, stage);
  }
  void Append(ActionKind kind, const StageCopy& stage) {
    result_.push_back({.kind = kind, .copy = static_cast<int16_t>(stage.second), .stage = stage.first});
  }

  const std::vector<Action>& list_;
  const int active_stages_;
  std::map<StageCopy, Uses> uses_;
  std::vector<StageCopy> active_;
  std::vector<Action> result_;
};

}  // namespace

Schedule AddUnsharding(Schedule schedule, int active_stages) {
  CHECK_GE(active_stages, 2);
  for (auto& list : schedule.ranks) list = UnshardPass(list, active_stages).Run();
  return schedule;
}

}  // namespace sluice
