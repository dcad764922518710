// After pass 1, where the model has several copies or replicas: REDUCE_GRAD, in which the ranks that hold one stage
// exchange their partial gradients, behind the last weight gradient that any of them adds. The lists are played with
// each SEND beside its RECV, and a REDUCE_GRAD enters the lists of all its members at one moment: like transfers, in
// one global order that no assignment of queues can turn into a circle.
#include "scheduler/lowering.h"
#include "scheduler/lowering/of_stage.h"

namespace sluice {
namespace {

bool AddsWeightGradient(ActionKind kind) {
  return kind == ActionKind::kBackward || kind == ActionKind::kWeightGradient;
}

class ReducePass {
 public:
  explicit ReducePass(Program& program) : program_(program), placement_(program.placement) {
    left_.resize(program.pools.size());
    next_.resize(program.ranks.size());
    lists_.resize(program.ranks.size());
    for (const auto& list : program.ranks) {
      for (const Action& a : list) {
        if (AddsWeightGradient(a.kind)) ++left_[placement_.Index(a.stage, a.copy)];
      }
    }
  }

  void Run() {
    for (size_t r = 0; r < lists_.size(); ++r) awake_.push_back(r);
    while (!awake_.empty()) {
      const size_t r = awake_.back();
      awake_.pop_back();
      while (Advance(r)) {
      }
    }
    // Lists that come with transfers which need more than one queue stand still here; what is left of them follows.
    for (size_t r = 0; r < lists_.size(); ++r) {
      while (next_[r] < program_.ranks[r].size()) Take(r);
    }
    program_.ranks = std::move(lists_);
  }

 private:
  // Moves the rank's next action over, a transfer together with its other end. False if it can't yet.
  bool Advance(size_t r) {
    if (next_[r] == program_.ranks[r].size()) return false;
    const Action& a = program_.ranks[r][next_[r]];
    if (IsTransfer(a.kind)) {
      const size_t peer = a.peer.index();
      if (next_[peer] == program_.ranks[peer].size() || !Matches(a, program_.ranks[peer][next_[peer]])) return false;
      Take(peer);
      awake_.push_back(peer);
    }
    Take(r);
    return true;
  }

  static bool Matches(const Action& a, const Action& b) {
    const auto other_end = [](ActionKind kind) {
      switch (kind) {
        case ActionKind::kSendForward:
          return ActionKind::kRecvForward;
        case ActionKind::kRecvForward:
          return ActionKind::kSendForward;
        case ActionKind::kSendBackward:
          return ActionKind::kRecvBackward;
        default:
          return ActionKind::kSendBackward;
      }
    };
    return b.kind == other_end(a.kind) && a.micro_batch == b.micro_batch && a.copy == b.copy;
  }

  void Take(size_t r) {
    const Action a = program_.ranks[r][next_[r]++];
    lists_[r].push_back(a);
    if (!AddsWeightGradient(a.kind)) return;
    --left_[placement_.Index(a.stage, a.copy)];
    for (int copy = 0; copy < placement_.copies(); ++copy) {
      if (left_[placement_.Index(a.stage, copy)] > 0) return;
    }
    for (int copy = 0; copy < placement_.copies(); ++copy) {
      lists_[placement_.RankOf(a.stage, copy).index()].push_back(
          {.kind = ActionKind::kReduceGradient, .copy = static_cast<int16_t>(copy), .stage = a.stage});
    }
  }

  Program& program_;
  const Placement& placement_;
  std::vector<int> left_;     // weight gradients still to be added, per Placement::Index
  std::vector<size_t> next_;  // per rank
  std::vector<std::vector<Action>> lists_;
  std::vector<size_t> awake_;
};

bool HasReductions(const Program& program) {
  for (const auto& list : program.ranks) {
    for (const Action& a : list) {
      if (a.kind == ActionKind::kReduceGradient) return true;
    }
  }
  return false;
}

}  // namespace

void AddReductions(Program& program) {
  const Placement& placement = program.placement;
  if (program.pass == PassKind::kForwardOnly || !program.Reduces()) return;
  if (!HasReductions(program)) ReducePass(program).Run();
  const auto first = static_cast<int32_t>(program.collectives.size());
  for (int s = 0; s < placement.stages(); ++s) {
    program.collectives.push_back(OfStage(CollectiveKind::kStageGradients, StageId(s), placement));
  }
  for (auto& list : program.ranks) {
    for (Action& a : list) {
      if (a.kind == ActionKind::kReduceGradient) a.collective = first + a.stage.value();
    }
  }
}

}  // namespace sluice
