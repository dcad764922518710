// Runs a program in its execution model: by propagating ends, each rank woken when something it may wait for has ended.
// Every time is the latest of what is waited for, so the order of propagation makes no difference. What a run is for
// is its `Timing`: Untimed for the proof of progress, a simulation's for times.
#pragma once

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/types/span.h"
#include "scheduler/execution_model.h"
#include "scheduler/program.h"

namespace sluice {

enum class ActionState : uint8_t { kWaiting, kIssued, kStarted, kEnded };

// Nothing takes time, and nobody asks when.
struct Untimed {
  static constexpr bool kTimed = false;
  int64_t Begin(size_t rank) const { return 0; }
  int64_t Duration(size_t rank, const Action& action) const { return 0; }
  void OnEnd(size_t rank, int32_t position, int64_t begin_ns, int64_t end_ns) const {}
};

// A transfer that a network has delivered, by one of its ends.
struct Delivered {
  size_t rank = 0;
  int32_t position = 0;
  int64_t begin_ns = 0, end_ns = 0;
};

// `Timing` has kTimed, Begin, Duration in ns, and OnEnd, called once for each action that ends. If it is timed, it also
// has Hold, which may keep a transfer whose ends are ready, and Deliver, which gives back what it kept, by time.
template <class Timing>
class ExecutionRun {
 public:
  ExecutionRun(const Program& program, const ExecutionModel& model, Timing timing)
      : program_(program), model_(model), timing_(std::move(timing)) {
    ranks_.resize(program.ranks.size());
    for (size_t r = 0; r < program.ranks.size(); ++r) {
      Rank& rank = ranks_[r];
      rank.actions = program.ranks[r].data();
      rank.waits = model.waits[r].data();
      rank.size = static_cast<int32_t>(program.ranks[r].size());
      rank.progress.resize(program.ranks[r].size());
      if constexpr (Timing::kTimed) rank.times.resize(program.ranks[r].size());
      rank.issue_ns = timing_.Begin(r);
      for (int32_t head : model.queue_heads[r]) rank.queues.push_back({head, 0});
    }
    arrived_.resize(program.collectives.size());
  }

  // True if every action ended.
  bool Run() {
    for (size_t r = 0; r < ranks_.size(); ++r) Wake(r);
    do {
      Propagate();
    } while (DeliverNext());
    for (const Rank& rank : ranks_) {
      if (rank.issued < rank.size) return false;
      for (const QueueState& queue : rank.queues) {
        if (queue.head >= 0) return false;
      }
    }
    return true;
  }

  ActionState State(size_t r, int32_t k) const {
    const Rank& rank = ranks_[r];
    if (rank.progress[k] != Progress::kNone) {
      return rank.progress[k] == Progress::kEnded ? ActionState::kEnded : ActionState::kStarted;
    }
    return k < rank.issued ? ActionState::kIssued : ActionState::kWaiting;
  }
  // The action that the rank's issuing thread stands at; the list's size if it came to the end.
  int32_t IssuePosition(size_t r) const { return ranks_[r].issued; }

 private:
  // Beyond being issued, which the position of the issuing thread tells.
  enum class Progress : uint8_t { kNone, kStarted, kEnded };

  struct QueueState {
    int32_t head;
    int64_t free_ns;
  };
  struct Rank {
    const Action* actions = nullptr;
    const Waits* waits = nullptr;
    int32_t size = 0;
    int32_t issued = 0;
    int64_t issue_ns = 0;
    bool awake = false;
    std::vector<Progress> progress;
    std::vector<int64_t> times;  // when issued, started or ended, whichever is the last
    absl::InlinedVector<QueueState, 4> queues;
  };

  void Propagate() {
    while (!awake_.empty()) {
      const size_t r = awake_.back();
      awake_.pop_back();
      while (Issue(ranks_[r]) | Start(r)) {
      }
      ranks_[r].awake = false;
    }
  }

  // When nothing moves by itself any more, all that can be ready before the next delivery is ready.
  bool DeliverNext() {
    if constexpr (Timing::kTimed) {
      const std::optional<Delivered> delivered = timing_.Deliver();
      if (!delivered) return false;
      const Rank& rank = ranks_[delivered->rank];
      const std::pair<size_t, int32_t> ends[] = {
          {delivered->rank, delivered->position},
          {rank.actions[delivered->position].peer.index(), rank.waits[delivered->position].partner}};
      EndAll(ends, delivered->begin_ns, delivered->end_ns);
      return true;
    }
    return false;
  }

  void Wake(size_t r) {
    if (!std::exchange(ranks_[r].awake, true)) awake_.push_back(r);
  }
  static bool Ended(const Rank& rank, int32_t k) { return k < 0 || rank.progress[k] == Progress::kEnded; }
  static int64_t Time(const Rank& rank, int32_t k) { return k < 0 ? 0 : rank.times[k]; }

  static bool CanStart(const Rank& rank, const Waits& waits) {
    return Ended(rank, waits.start_after) && Ended(rank, waits.start_after_input) &&
           Ended(rank, waits.start_after_slot);
  }

  // Moves the issuing thread on as far as it gets.
  bool Issue(Rank& rank) {
    const int32_t before = rank.issued;
    for (; rank.issued < rank.size; ++rank.issued) {
      const Waits& waits = rank.waits[rank.issued];
      if (!Ended(rank, waits.issue_after_input) || !Ended(rank, waits.issue_after_slot)) break;
      if constexpr (Timing::kTimed) {
        rank.issue_ns =
            std::max({rank.issue_ns, Time(rank, waits.issue_after_input), Time(rank, waits.issue_after_slot)});
        rank.times[rank.issued] = rank.issue_ns;
      }
    }
    return rank.issued != before;
  }

  // Starts the heads of the queues that can start.
  bool Start(size_t r) {
    Rank& rank = ranks_[r];
    bool moved = false;
    for (QueueState& queue : rank.queues) {
      while (queue.head >= 0) {
        const int32_t k = queue.head;
        const Waits& waits = rank.waits[k];
        if (rank.progress[k] == Progress::kNone && k < rank.issued && CanStart(rank, waits)) {
          rank.progress[k] = Progress::kStarted;
          if constexpr (Timing::kTimed) {
            rank.times[k] = std::max({rank.times[k], queue.free_ns, Time(rank, waits.start_after),
                                      Time(rank, waits.start_after_input), Time(rank, waits.start_after_slot)});
          }
          EndIfComplete(r, k);
        }
        if (rank.progress[k] != Progress::kEnded) break;
        queue.head = waits.queue_next;
        if constexpr (Timing::kTimed) queue.free_ns = rank.times[k];
        moved = true;
      }
    }
    return moved;
  }

  // After a start: ends a compute action; a transfer if its other end has started; a collective if all members have.
  void EndIfComplete(size_t r, int32_t k) {
    const Action& action = ranks_[r].actions[k];
    if (IsTransfer(action.kind)) {
      const size_t peer = action.peer.index();
      const int32_t partner = ranks_[r].waits[k].partner;
      if (ranks_[peer].progress[partner] != Progress::kStarted) return;
      EndTogether({{{r, k}, {peer, partner}}}, action);
    } else if (IsCollective(action)) {
      auto& arrived = arrived_[action.collective];
      arrived.emplace_back(r, k);
      if (arrived.size() == program_.collectives[action.collective].members.size()) EndTogether(arrived, action);
    } else {
      EndTogether({{{r, k}}}, action);
    }
  }

  // REQUIRES: all have started. `action` is one of them.
  void EndTogether(absl::Span<const std::pair<size_t, int32_t>> members, const Action& action) {
    int64_t begin_ns = 0, end_ns = 0;
    if constexpr (Timing::kTimed) {
      for (const auto& [rank, position] : members) begin_ns = std::max(begin_ns, ranks_[rank].times[position]);
      if (IsTransfer(action.kind) && timing_.Hold(members[0].first, members[0].second, begin_ns)) return;
      end_ns = begin_ns + timing_.Duration(members.back().first, action);
    }
    EndAll(members, begin_ns, end_ns);
  }

  void EndAll(absl::Span<const std::pair<size_t, int32_t>> members, int64_t begin_ns, int64_t end_ns) {
    for (const auto& [r, k] : members) {
      ranks_[r].progress[k] = Progress::kEnded;
      if constexpr (Timing::kTimed) ranks_[r].times[k] = end_ns;
      timing_.OnEnd(r, k, begin_ns, end_ns);
      Wake(r);
    }
  }

  const Program& program_;
  const ExecutionModel& model_;
  Timing timing_;
  std::vector<Rank> ranks_;
  std::vector<size_t> awake_;
  std::vector<std::vector<std::pair<size_t, int32_t>>> arrived_;  // per collective
};

}  // namespace sluice
