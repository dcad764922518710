// What the ranks of a job in one process share to end together: the first cause of a failure, an event that wakes every
// wait, and who waits in which action on whom. Threads: any.
#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/event.h"
#include "base/world.h"
#include "scheduler/action.h"
#include "scheduler/rank_grid.h"

namespace sluice {

class PipelineAbort {
 public:
  // Of all ranks of the grid; those of other processes stay silent.
  PipelineAbort(World* world, const RankGrid& grid);

  // Ends the job. The first cause wins; later ones change nothing.
  void Abort(const absl::Status& cause);
  // Done, with the cause as its status, when the job was ended.
  const EventRef& event() const { return event_; }
  // OK while the job has not been ended.
  absl::Status cause() const;

  // What a rank does; the executor says so.
  void SetIdle(WorldRank rank);
  void SetIssuing(WorldRank rank, const Action& action);
  // It stands before `action` and waits for `awaited`.
  void SetWaiting(WorldRank rank, const Action& action, const Action& awaited);

  // How often a rank here has gone on: changes while any of them does.
  uint64_t moves() const;

  // One line a rank: "rank 1 has waited 3.2 s before 1B0 for 1RECV_B0 from rank 2". Of the moment when the job was
  // ended, once it was.
  std::string Report() const;

 private:
  enum class Doing : uint8_t { kElsewhere, kIdle, kIssuing, kWaiting };
  struct RankState {
    Doing doing = Doing::kElsewhere;
    Action action, awaited;
    Nanoseconds since = 0;
  };
  void Set(WorldRank rank, RankState state);
  std::string ReportLocked() const;

  World* const world_;
  const RankGrid grid_;
  const Ref<Signal> signal_ = MakeRef<Signal>();
  const EventRef event_ = signal_;
  mutable std::mutex mutex_;
  std::vector<RankState> ranks_;
  uint64_t moves_ = 0;
  std::string report_;  // of the end
};

// "1RECV_B0 from rank 2", "COLLECTIVE1"
std::string WithPeer(const Action& action);

}  // namespace sluice
