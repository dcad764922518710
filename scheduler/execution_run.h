// Runs a program in its execution model, with a duration for each action: by propagating ends, each rank woken when
// something it may wait for has ended. Every time is the latest of what is waited for, so the order of propagation
// makes no difference.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "scheduler/execution_model.h"
#include "scheduler/program.h"

namespace sluice {

enum class ActionState : uint8_t { kWaiting, kIssued, kStarted, kEnded };

// `duration(rank, action)` in ns; `on_end(rank, position, begin_ns, end_ns)` once per action that ends.
template <class Duration, class OnEnd>
class ExecutionRun {
 public:
  ExecutionRun(const Program& program, const ExecutionModel& model, Duration duration, OnEnd on_end)
      : program_(program), model_(model), duration_(std::move(duration)), on_end_(std::move(on_end)) {
    for (size_t r = 0; r < program.ranks.size(); ++r) {
      Rank& rank = ranks_.emplace_back();
      rank.states.resize(program.ranks[r].size(), ActionState::kWaiting);
      rank.times.resize(program.ranks[r].size());
      for (int32_t head : model.queue_heads[r]) rank.queues.push_back({head, 0});
    }
    arrived_.resize(program.collectives.size());
  }

  // The rank's issuing thread comes to its list at that time, not at 0.
  void BeginAt(size_t r, int64_t ns) { ranks_[r].issue_ns = ns; }

  // True if every action ended.
  bool Run() {
    for (size_t r = 0; r < ranks_.size(); ++r) Wake(r);
    while (!awake_.empty()) {
      const size_t r = awake_.back();
      awake_.pop_back();
      while (Issue(r) | Start(r)) {
      }
      ranks_[r].awake = false;
    }
    for (const Rank& rank : ranks_) {
      if (rank.issued < rank.states.size()) return false;
      for (const QueueState& queue : rank.queues) {
        if (queue.head >= 0) return false;
      }
    }
    return true;
  }

  ActionState State(size_t r, int32_t k) const { return ranks_[r].states[k]; }
  // The action that the rank's issuing thread stands at; the list's size if it came to the end.
  int32_t IssuePosition(size_t r) const { return static_cast<int32_t>(ranks_[r].issued); }

 private:
  struct QueueState {
    int32_t head;
    int64_t free_ns;
  };
  struct Rank {
    std::vector<ActionState> states;
    std::vector<int64_t> times;  // when issued, started or ended, by state
    std::vector<QueueState> queues;
    size_t issued = 0;
    int64_t issue_ns = 0;
    bool awake = false;
  };

  void Wake(size_t r) {
    if (!std::exchange(ranks_[r].awake, true)) awake_.push_back(r);
  }
  static bool Ended(const Rank& rank, int32_t k) { return k < 0 || rank.states[k] == ActionState::kEnded; }
  static int64_t Time(const Rank& rank, int32_t k) { return k < 0 ? 0 : rank.times[k]; }

  // Moves the issuing thread on as far as it gets.
  bool Issue(size_t r) {
    Rank& rank = ranks_[r];
    const size_t before = rank.issued;
    for (; rank.issued < rank.states.size(); ++rank.issued) {
      const Waits& waits = model_.waits[r][rank.issued];
      if (!Ended(rank, waits.issue_after_input) || !Ended(rank, waits.issue_after_slot)) break;
      rank.issue_ns =
          std::max({rank.issue_ns, Time(rank, waits.issue_after_input), Time(rank, waits.issue_after_slot)});
      rank.states[rank.issued] = ActionState::kIssued;
      rank.times[rank.issued] = rank.issue_ns;
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
        const Waits& waits = model_.waits[r][k];
        if (rank.states[k] == ActionState::kIssued && Ended(rank, waits.start_after)) {
          rank.times[k] = std::max({rank.times[k], queue.free_ns, Time(rank, waits.start_after)});
          rank.states[k] = ActionState::kStarted;
          EndIfComplete(r, k);
        }
        if (rank.states[k] != ActionState::kEnded) break;
        queue = {waits.queue_next, rank.times[k]};
        moved = true;
      }
    }
    return moved;
  }

  // After a start: ends a compute action; a transfer if its other end has started; a collective if all members have.
  void EndIfComplete(size_t r, int32_t k) {
    const Action& action = program_.ranks[r][k];
    if (IsTransfer(action.kind)) {
      const size_t peer = action.peer.index();
      const int32_t partner = model_.waits[r][k].partner;
      if (ranks_[peer].states[partner] != ActionState::kStarted) return;
      const int64_t begin = std::max(ranks_[r].times[k], ranks_[peer].times[partner]);
      const int64_t end = begin + duration_(r, action);
      End(r, k, begin, end);
      End(peer, partner, begin, end);
    } else if (IsCollective(action)) {
      auto& arrived = arrived_[action.collective];
      arrived.emplace_back(r, k);
      if (arrived.size() < program_.collectives[action.collective].members.size()) return;
      int64_t begin = 0;
      for (const auto& [rank, position] : arrived) begin = std::max(begin, ranks_[rank].times[position]);
      const int64_t end = begin + duration_(r, action);
      for (const auto& [rank, position] : arrived) End(rank, position, begin, end);
    } else {
      const int64_t begin = ranks_[r].times[k];
      End(r, k, begin, begin + duration_(r, action));
    }
  }

  void End(size_t r, int32_t k, int64_t begin_ns, int64_t end_ns) {
    ranks_[r].states[k] = ActionState::kEnded;
    ranks_[r].times[k] = end_ns;
    on_end_(r, k, begin_ns, end_ns);
    Wake(r);
  }

  const Program& program_;
  const ExecutionModel& model_;
  Duration duration_;
  OnEnd on_end_;
  std::vector<Rank> ranks_;
  std::vector<size_t> awake_;
  std::vector<std::vector<std::pair<size_t, int32_t>>> arrived_;  // per collective
};

}  // namespace sluice
