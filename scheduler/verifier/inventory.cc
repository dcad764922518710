#include <algorithm>
#include <array>
#include <vector>

#include "absl/strings/str_cat.h"
#include "scheduler/verifier/checks.h"

namespace sluice::verifier {
namespace {

constexpr uint8_t Bit(ActionKind kind) { return static_cast<uint8_t>(1u << static_cast<int>(kind)); }  // F ... RECV_B

class Inventory {
 public:
  explicit Inventory(const Program& program)
      : program_(program), placement_(program.placement), stages_(placement_.stages()), m_(program.micro_batches) {}

  absl::Status Check() {
    if (program_.ranks.size() != static_cast<size_t>(placement_.ranks()))
      return absl::FailedPreconditionError(
          absl::StrCat("there are ", program_.ranks.size(), " lists for ", placement_.ranks(), " ranks"));
    if (program_.pools.size() != static_cast<size_t>(stages_) * placement_.copies())
      return absl::FailedPreconditionError("the program has no pool sizes for its stages");
    if (program_.groups != 0 && (program_.groups < 0 || m_ % program_.groups != 0 || placement_.copies() > 1 ||
                                 program_.pass != PassKind::kForwardOnly))
      return absl::FailedPreconditionError(absl::StrCat(
          "generation needs one copy of the model, forward passes alone and as many of them for each of the ",
          program_.groups, " groups, not ", m_, " in all"));
    if (program_.replicas < 1)
      return absl::FailedPreconditionError(absl::StrCat("the program is for ", program_.replicas, " replicas"));
    seen_.assign(program_.pools.size() * m_, 0);
    if (program_.validation == Validation::kGuessWrong) discarded_.assign(program_.pools.size() * m_, 0);
    post_validated_ = Lists(ActionKind::kNorm);
    if (post_validated_ && !program_.collectives.empty())
      return absl::FailedPreconditionError("a program with NORM has collectives, for which its ranks wait at the end");
    collectives_.assign(program_.collectives.size(), 0);
    reduced_.assign(program_.pools.size(), 0);
    for (size_t r = 0; r < program_.ranks.size(); ++r) {
      if (absl::Status status = CheckRank(r); !status.ok()) return status;
    }
    if (absl::Status status = CheckComplete(); !status.ok()) return status;
    return CheckGathers();
  }

 private:
  template <class... Words>
  absl::Status Error(size_t rank, size_t entry, const Words&... words) const {
    return absl::FailedPreconditionError(
        absl::StrCat("rank ", rank, ", entry ", entry, ": ", ToString(program_.ranks[rank][entry]), " ", words...));
  }

  absl::Status CheckRank(size_t r) {
    int compute_queue = -1, optimizer_steps = 0;
    std::array<int, kActionKinds> of_rank = {};
    std::vector<bool> collectives(program_.collectives.size());
    for (size_t k = 0; k < program_.ranks[r].size(); ++k) {
      const Action& a = program_.ranks[r][k];
      if (a.queue.value() < 0 || a.queue.index() >= program_.queues.size()) return Error(r, k, "has no queue");
      if (a.kind == ActionKind::kOptimizerStep) {
        if (++optimizer_steps > 1) return Error(r, k, "stands twice in the list");
      } else if (a.kind == ActionKind::kCollective) {
        if (a.collective < 0 || a.collective >= static_cast<int>(collectives.size()))
          return Error(r, k, "is not among the program's collectives");
        if (program_.collectives[a.collective].kind == CollectiveKind::kStageGradients)
          return Error(r, k, "is REDUCE_GRAD's");
        if (collectives[a.collective]) return Error(r, k, "stands twice in the list");
        collectives[a.collective] = true;
        ++collectives_[a.collective];
      } else if (a.kind >= ActionKind::kNorm) {
        ++of_rank[static_cast<size_t>(a.kind)];
        if (absl::Status status = CheckNormPeer(r, k, a); !status.ok()) return status;
      } else if (absl::Status status = CheckStageAction(r, k, a); !status.ok()) {
        return status;
      } else if (a.kind == ActionKind::kReduceGradient) {
        if (status = CheckReduction(r, k, a, collectives); !status.ok()) return status;
      }
      if (!RunsInComputeQueue(a.kind)) continue;
      if (program_.queues[a.queue.index()].kind != QueueKind::kCompute)
        return Error(r, k, "is in queue ", program_.queues[a.queue.index()].name, ", which is not for computing");
      if (compute_queue >= 0 && compute_queue != a.queue.value())
        return Error(r, k, "is in another queue than the rank's other compute actions");
      compute_queue = a.queue.value();
    }
    const int steps = program_.pass == PassKind::kTraining ? 1 : 0;
    if (optimizer_steps != steps)
      return absl::FailedPreconditionError(
          absl::StrCat("OPTIMIZER_STEP ", steps ? "is missing on rank " : "in a forward-only program, on rank ", r));
    if (absl::Status status = CheckNormActions(r, of_rank); !status.ok()) return status;
    return CheckMembership(r, collectives);
  }

  static bool RunsInComputeQueue(ActionKind kind) {
    return IsCompute(kind) || kind == ActionKind::kOptimizerStep || kind == ActionKind::kNorm ||
           kind == ActionKind::kPostValidation;
  }

  // The norm goes up the ranks one by one, the decision down.
  absl::Status CheckNormPeer(size_t r, size_t k, const Action& a) const {
    if (!IsTransfer(a.kind)) return absl::OkStatus();
    const bool up = a.kind == ActionKind::kSendNorm || a.kind == ActionKind::kRecvValidation;
    const int peer = static_cast<int>(r) + (up ? 1 : -1);
    if (a.peer.value() == peer && peer >= 0 && peer < placement_.ranks()) return absl::OkStatus();
    return Error(r, k, "names rank ", a.peer.value(), ", but goes between neighbours, to or from rank ", peer);
  }

  // Those of post-validation: all that the program's kind wants, each once, and no others.
  absl::Status CheckNormActions(size_t r, const std::array<int, kActionKinds>& counts) const {
    const bool first = r == 0, last = static_cast<int>(r) + 1 == placement_.ranks();
    const bool validates = program_.validation != Validation::kNone;
    const bool steps = program_.pass == PassKind::kTraining && post_validated_;
    const std::pair<ActionKind, bool> needed[] = {
        {ActionKind::kNorm, steps},
        {ActionKind::kSendNorm, steps && !last},
        {ActionKind::kRecvNorm, steps && !first},
        {ActionKind::kSendValidation, validates && !first},
        {ActionKind::kRecvValidation, validates && !last},
        {ActionKind::kPostValidation, validates},
    };
    for (const auto& [kind, need] : needed) {
      const int count = counts[static_cast<size_t>(kind)];
      if (count == (need ? 1 : 0)) continue;
      return absl::FailedPreconditionError(absl::StrCat(ActionKindName(kind),
                                                        need && count == 0 ? " is missing"
                                                        : need             ? " stands twice"
                                                                           : " has no place",
                                                        " on rank ", r));
    }
    return absl::OkStatus();
  }

  // Between the holders of a stage that is there, and only where there are several.
  absl::Status CheckOfStage(const Collective& collective, size_t c) const {
    if (!program_.Reduces() || program_.pass != PassKind::kTraining)
      return absl::FailedPreconditionError(absl::StrCat("COLLECTIVE", c, " is of a stage that has one holder"));
    if (collective.stage.value() < 0 || collective.stage.value() >= stages_)
      return absl::FailedPreconditionError(absl::StrCat("COLLECTIVE", c, " names no stage"));
    if (collective.members != HoldersOf(collective.stage))
      return absl::FailedPreconditionError(
          absl::StrCat("COLLECTIVE", c, " is not between the ranks that hold stage ", collective.stage.value()));
    return absl::OkStatus();
  }

  // Where a stage has several holders, its summed gradients or its parameters are gathered, once.
  absl::Status CheckGathers() const {
    std::vector<int> gathers(stages_);
    for (size_t c = 0; c < program_.collectives.size(); ++c) {
      const Collective& collective = program_.collectives[c];
      if (!IsOfStage(collective.kind) || collective.kind == CollectiveKind::kStageGradients) continue;
      if (absl::Status status = CheckOfStage(collective, c); !status.ok()) return status;
      ++gathers[collective.stage.index()];
    }
    for (int s = 0; s < stages_ && program_.Reduces() && program_.pass == PassKind::kTraining; ++s) {
      if (gathers[s] != 1)
        return absl::FailedPreconditionError(absl::StrCat("the summed gradients or the parameters of stage ", s,
                                                          " are gathered ", gathers[s], " times, not once"));
    }
    return absl::OkStatus();
  }

  std::vector<PipelineRank> HoldersOf(StageId stage) const {
    std::vector<PipelineRank> holders;
    for (int copy = 0; copy < placement_.copies(); ++copy) holders.push_back(placement_.RankOf(stage, copy));
    std::sort(holders.begin(), holders.end());
    return holders;
  }

  // With one copy and replica REDUCE_GRAD stands alone; with several it is the stage's collective.
  absl::Status CheckReduction(size_t r, size_t k, const Action& a, std::vector<bool>& listed) {
    if (program_.pass == PassKind::kForwardOnly) return Error(r, k, "has no place in a forward-only program");
    if (reduced_[placement_.Index(a.stage, a.copy)]++ > 0) return Error(r, k, "stands twice in the list");
    if (!program_.Reduces() && a.collective < 0) return absl::OkStatus();
    if (a.collective < 0) return Error(r, k, "names no collective, but others hold parts of its stage's gradients");
    if (a.collective >= static_cast<int>(listed.size())) return Error(r, k, "is not among the program's collectives");
    const Collective& collective = program_.collectives[a.collective];
    if (collective.kind != CollectiveKind::kStageGradients || collective.stage != a.stage)
      return Error(r, k, "names a collective of something else");
    if (collective.members != HoldersOf(a.stage))
      return Error(r, k, "is not between the ranks that hold the stage's copies");
    if (listed[a.collective]) return Error(r, k, "stands on a rank that holds two copies of the stage");
    listed[a.collective] = true;
    ++collectives_[a.collective];
    return absl::OkStatus();
  }

  absl::Status CheckMembership(size_t r, const std::vector<bool>& listed) const {
    for (size_t c = 0; c < listed.size(); ++c) {
      bool member = false;
      for (PipelineRank rank : program_.collectives[c].members) member |= rank.index() == r;
      if (member != listed[c])
        return absl::FailedPreconditionError(absl::StrCat(
            CollectiveName(c), member ? " is missing on rank " : " is listed, without being a member, by rank ", r));
    }
    return absl::OkStatus();
  }

  std::string CollectiveName(size_t c) const {
    const Collective& collective = program_.collectives[c];
    if (collective.kind != CollectiveKind::kStageGradients) return absl::StrCat("COLLECTIVE", c);
    return ToString({.kind = ActionKind::kReduceGradient, .stage = collective.stage});
  }

  absl::Status CheckStageAction(size_t r, size_t k, const Action& a) {
    if (a.stage.value() < 0 || a.stage.value() >= stages_ || a.copy < 0 || a.copy >= placement_.copies())
      return Error(r, k, "is out of range: ", stages_, " stages, ", placement_.copies(), " copies");
    if (placement_.RankOf(a.stage, a.copy).index() != r)
      return Error(r, k, "belongs on rank ", placement_.RankOf(a.stage, a.copy).value());
    if (!IsCompute(a.kind) && !IsTransfer(a.kind)) return absl::OkStatus();
    if (a.micro_batch.value() < 0 || a.micro_batch.value() >= m_)
      return Error(r, k, "is out of range: ", m_, " micro-batches");
    if (a.copy != CopyOf(a.micro_batch, m_, placement_.copies()))
      return Error(r, k, "is not a micro-batch of copy ", a.copy);
    if (program_.pass == PassKind::kForwardOnly && !(a.kind == ActionKind::kForward || IsForwardTransfer(a)))
      return Error(r, k, "has no place in a forward-only program");
    const bool discarded = a.flags & kDiscarded;
    if (discarded && (discarded_.empty() || !(a.kind == ActionKind::kForward || IsStageTransfer(a.kind))))
      return Error(r, k, "can't be discarded here");
    uint8_t& seen = (discarded ? discarded_ : seen_)[Cell(a.stage, a.copy, a.micro_batch)];
    if (seen & Bit(a.kind)) return Error(r, k, "stands twice in the list");
    seen |= Bit(a.kind);
    if (absl::Status status = CheckPeer(r, k, a); !status.ok()) return status;
    return CheckSlots(r, k, a);
  }

  static bool IsForwardTransfer(const Action& a) {
    return a.kind == ActionKind::kSendForward || a.kind == ActionKind::kRecvForward;
  }

  // The stage at the other side of what a transfer, F, B or I passes on or takes; out of range: there is none.
  int Neighbour(const Action& a) const {
    const bool next =
        a.kind == ActionKind::kForward || a.kind == ActionKind::kSendForward || a.kind == ActionKind::kRecvBackward;
    const int direct = a.stage.value() + (next ? 1 : -1);
    if (a.kind != ActionKind::kForward && !IsForwardTransfer(a)) return direct;
    const ForwardPath path = program_.path();
    const auto other = next ? path.Next(a.stage, a.micro_batch) : path.Previous(a.stage, a.micro_batch);
    return other ? other->stage.value() : direct;
  }

  absl::Status CheckPeer(size_t r, size_t k, const Action& a) const {
    if (!IsTransfer(a.kind)) return absl::OkStatus();
    const int other = Neighbour(a);
    if (other < 0 || other >= stages_) return Error(r, k, "has no stage ", other, " to exchange with");
    const PipelineRank peer = placement_.RankOf(StageId(other), a.copy);
    if (peer.index() == r) return Error(r, k, "is not needed, stage ", other, " is on the same rank");
    if (peer != a.peer)
      return Error(r, k, "names rank ", a.peer.value(), ", but stage ", other, " is on rank ", peer.value());
    return absl::OkStatus();
  }

  absl::Status CheckSlots(size_t r, size_t k, const Action& a) const {
    const auto check = [&](int32_t slot, const char* field, Pool pool, int stage) -> absl::Status {
      const int32_t size = program_.PoolSize(pool, StageId(stage), a.copy);
      if (slot >= 0 && slot < size) return absl::OkStatus();
      return Error(r, k, "has ", field, " ", slot, ", but ", PoolName(pool), " of stage ", stage, " has ", size,
                   " slots");
    };
    const int s = a.stage.value(), other = Neighbour(a);
    const bool local = other >= 0 && other < stages_ && placement_.RankOf(StageId(other), a.copy).index() == r;
    switch (a.kind) {
      case ActionKind::kForward: {
        if (absl::Status status = check(a.stash, "stash", Pool::kStash, s); !status.ok()) return status;
        if (other >= stages_) return absl::OkStatus();
        return check(a.slot, "slot", local ? Pool::kInput : Pool::kOutput, local ? other : s);
      }
      case ActionKind::kBackward:
      case ActionKind::kInputGradient: {
        if (absl::Status status = check(a.stash, "stash", Pool::kGradientStash, s); !status.ok()) return status;
        if (other < 0) return absl::OkStatus();
        return check(a.slot, "slot", local ? Pool::kOutputGradient : Pool::kInputGradient, local ? other : s);
      }
      case ActionKind::kSendForward:
        return check(a.slot, "slot", Pool::kOutput, s);
      case ActionKind::kRecvForward:
        return check(a.slot, "slot", Pool::kInput, s);
      case ActionKind::kSendBackward:
        return check(a.slot, "slot", Pool::kInputGradient, s);
      case ActionKind::kRecvBackward:
        return check(a.slot, "slot", Pool::kOutputGradient, s);
      default:
        return absl::OkStatus();
    }
  }

  absl::Status CheckComplete() const {
    for (size_t c = 0; c < collectives_.size(); ++c) {
      if (collectives_[c] != program_.collectives[c].members.size())
        return absl::FailedPreconditionError(absl::StrCat("COLLECTIVE", c, " names a rank that does not exist"));
    }
    for (size_t k = 0; k < reduced_.size() && program_.pass == PassKind::kTraining && program_.Reduces(); ++k) {
      if (reduced_[k] == 0)
        return absl::FailedPreconditionError(
            absl::StrCat("REDUCE_GRAD of stage ", k % stages_, " of copy ", k / stages_, " is missing"));
    }
    for (int i = 0; i < m_; ++i) {
      const int copy = CopyOf(MicroBatch(i), m_, placement_.copies());
      for (int s = 0; s < stages_; ++s) {
        if (absl::Status status = CheckCell(StageId(s), copy, MicroBatch(i)); !status.ok()) return status;
        if (absl::Status status = CheckDiscarded(StageId(s), copy, MicroBatch(i)); !status.ok()) return status;
      }
    }
    return absl::OkStatus();
  }

  absl::Status CheckCell(StageId stage, int copy, MicroBatch i) const {
    const PipelineRank rank = placement_.RankOf(stage, copy);
    const auto remote = [&](int other) {
      return other >= 0 && other < stages_ && placement_.RankOf(StageId(other), copy) != rank;
    };
    const bool training = program_.pass == PassKind::kTraining;
    const auto before = program_.path().Previous(stage, i), behind = program_.path().Next(stage, i);
    const bool previous = before && remote(before->stage.value()), next = behind && remote(behind->stage.value());
    const uint8_t seen = seen_[Cell(stage, copy, i)];
    const bool split = seen & (Bit(ActionKind::kInputGradient) | Bit(ActionKind::kWeightGradient));
    const auto name = [&](ActionKind kind) {
      return ToString({.kind = kind, .copy = static_cast<int16_t>(copy), .stage = stage, .micro_batch = i});
    };
    if (split && (seen & Bit(ActionKind::kBackward)))
      return absl::FailedPreconditionError(
          absl::StrCat("rank ", rank.value(), " has ", name(ActionKind::kBackward), " and also its parts I or W"));
    const std::pair<ActionKind, bool> needed[] = {
        {ActionKind::kForward, true},
        {ActionKind::kBackward, training && !split},
        {ActionKind::kInputGradient, training && split},
        {ActionKind::kWeightGradient, training && split},
        {ActionKind::kRecvForward, previous},
        {ActionKind::kSendForward, next},
        {ActionKind::kSendBackward, training && previous},
        {ActionKind::kRecvBackward, training && next},
    };
    for (const auto& [kind, need] : needed) {
      if (need && !(seen & Bit(kind)))
        return absl::FailedPreconditionError(absl::StrCat(name(kind), " is missing on rank ", rank.value()));
    }
    return absl::OkStatus();
  }

  // Of what is discarded, each message has both its ends.
  absl::Status CheckDiscarded(StageId stage, int copy, MicroBatch i) const {
    if (discarded_.empty() || stage.value() + 1 == stages_) return absl::OkStatus();
    const StageId next(stage.value() + 1);
    const uint8_t below = discarded_[Cell(stage, copy, i)], above = discarded_[Cell(next, copy, i)];
    const auto both = [&](ActionKind down, ActionKind up) -> absl::Status {
      const bool has_down = below & Bit(down), has_up = above & Bit(up);
      if (has_down == has_up) return absl::OkStatus();
      const Action missing{.kind = has_down ? up : down,
                           .flags = kDiscarded,
                           .copy = static_cast<int16_t>(copy),
                           .stage = has_down ? next : stage,
                           .micro_batch = i};
      return absl::FailedPreconditionError(absl::StrCat(ToString(missing), " is missing on rank ",
                                                        placement_.RankOf(missing.stage, copy).value(),
                                                        ", the other end of a message that has been begun"));
    };
    if (absl::Status status = both(ActionKind::kSendForward, ActionKind::kRecvForward); !status.ok()) return status;
    return both(ActionKind::kRecvBackward, ActionKind::kSendBackward);
  }

  bool Lists(ActionKind kind) const {
    for (const auto& list : program_.ranks) {
      for (const Action& a : list) {
        if (a.kind == kind) return true;
      }
    }
    return false;
  }

  size_t Cell(StageId stage, int copy, MicroBatch i) const { return placement_.Index(stage, copy) * m_ + i.index(); }

  const Program& program_;
  const Placement& placement_;
  const int stages_, m_;
  std::vector<uint8_t> seen_;
  std::vector<uint8_t> discarded_;  // like seen_, of what is discarded; empty where nothing may be
  bool post_validated_ = false;
  std::vector<size_t> collectives_;  // ranks that list each
  std::vector<int> reduced_;         // REDUCE_GRADs, per Placement::Index
};

}  // namespace

absl::Status CheckInventory(const Program& program) { return Inventory(program).Check(); }

}  // namespace sluice::verifier
