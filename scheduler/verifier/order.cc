#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "scheduler/verifier/checks.h"

namespace sluice::verifier {
namespace {

constexpr int32_t kNone = -1;

// One micro-batch in one stage, as the walk along the list has left it.
struct Cell {
  std::array<int32_t, kPoolCount> slot = {kNone, kNone, kNone, kNone, kNone, kNone};  // held in each pool
  bool forward_done = false;
  bool input_gradient_done = false;
};

// Of a (copy, stage), likewise.
struct Parameters {
  bool sharded = false;
  bool reduced = false;
};

class OrderCheck {
 public:
  OrderCheck(const Program& program, const VerifierOptions& options)
      : program_(program), placement_(program.placement), options_(options), last_(placement_.stages() - 1) {
    cells_.resize(program.pools.size() * program.micro_batches);
    parameters_.resize(program.pools.size());
    for (const PoolSizes& sizes : program.pools) {
      for (int32_t size : sizes) {
        offsets_.push_back(holders_.size());
        holders_.resize(holders_.size() + size, kNone);
      }
    }
  }

  absl::Status Walk(size_t rank, int64_t& live_bytes_max) {
    rank_ = rank;
    for (const Action& a : program_.ranks[rank]) {  // a stage that is never unsharded is not sharded
      if (a.kind == ActionKind::kUnshard) parameters_[placement_.Index(a.stage, a.copy)].sharded = true;
    }
    live_bytes_ = live_bytes_max_ = 0;
    bool computed_all = false;
    stepped_ = summed_ = false;
    open_ = program_.validation != Validation::kNone;
    seen_ = 0;
    for (entry_ = 0; entry_ < program_.ranks[rank].size(); ++entry_) {
      const Action& a = program_.ranks[rank][entry_];
      const bool computes = IsCompute(a.kind) || a.kind == ActionKind::kReduceGradient;
      if (computed_all && computes) return Error("comes after the rank's end of the step");
      if (a.kind == ActionKind::kCollective) RETURN_IF_ERROR(VisitCollective(program_.collectives[a.collective].kind));
      if (a.kind == ActionKind::kCollective || a.kind == ActionKind::kOptimizerStep || a.kind == ActionKind::kNorm) {
        computed_all = true;
      }
      if (a.kind == ActionKind::kOptimizerStep) stepped_ = true;
      RETURN_IF_ERROR(VisitNorm(a));
      RETURN_IF_ERROR(CheckDiscarded(a));
      RETURN_IF_ERROR(VisitParameters(a));
      RETURN_IF_ERROR(Visit(a));
    }
    live_bytes_max = live_bytes_max_;
    return absl::OkStatus();
  }

 private:
  template <class... Words>
  absl::Status Error(const Words&... words) const {
    return absl::FailedPreconditionError(
        absl::StrCat("rank ", rank_, ", entry ", entry_, ": ", ToString(program_.ranks[rank_][entry_]), " ", words...));
  }

  // Tied gradients, then the norm, for which all gradients are summed; what is gathered stands on its side of the step.
  absl::Status VisitCollective(CollectiveKind kind) {
    if (kind == CollectiveKind::kParameters)
      return stepped_ ? absl::OkStatus() : Error("gathers parameters, but comes before OPTIMIZER_STEP");
    if (stepped_) return Error("comes after OPTIMIZER_STEP");
    if (kind == CollectiveKind::kTiedGradients && summed_)
      return Error("exchanges gradients, but comes after the norm");
    if (kind == CollectiveKind::kSummedGradients && !summed_)
      return Error("gathers summed gradients, but comes before the norm");
    if (kind == CollectiveKind::kNorm) summed_ = true;
    return absl::OkStatus();
  }

  Cell& Of(int stage, const Action& a) {
    return cells_[placement_.Index(StageId(stage), a.copy) * program_.micro_batches + a.micro_batch.index()];
  }
  bool Local(int stage, const Action& a) const { return placement_.RankOf(StageId(stage), a.copy).index() == rank_; }

  bool Seen(ActionKind kind) const { return seen_ & (1u << static_cast<int>(kind)); }

  // Post-validation: each of its actions after what it needs, and nothing that can't be taken back before it.
  absl::Status VisitNorm(const Action& a) {
    const bool first = rank_ == 0, last = static_cast<int>(rank_) + 1 == placement_.ranks();
    const auto needs = [&](ActionKind kind) -> absl::Status {
      return Seen(kind) ? absl::OkStatus() : Error("comes before ", ActionKindName(kind));
    };
    seen_ |= 1u << static_cast<int>(a.kind);
    switch (a.kind) {
      case ActionKind::kNorm:
        if (!first) RETURN_IF_ERROR(needs(ActionKind::kRecvNorm));
        break;
      case ActionKind::kSendNorm:
        RETURN_IF_ERROR(needs(ActionKind::kNorm));
        break;
      case ActionKind::kSendValidation:
        if (!last) RETURN_IF_ERROR(needs(ActionKind::kRecvValidation));
        break;
      case ActionKind::kPostValidation:
        if (!last) RETURN_IF_ERROR(needs(ActionKind::kRecvValidation));
        if (!first) RETURN_IF_ERROR(needs(ActionKind::kSendValidation));
        open_ = false;
        if (program_.validation == Validation::kGuessWrong) ReleaseDiscarded();
        return absl::OkStatus();
      default:
        break;
    }
    const bool keeps = a.kind == ActionKind::kForward || IsTransfer(a.kind) || a.kind == ActionKind::kUnshard ||
                       a.kind == ActionKind::kReshard;
    if (open_ && !keeps)
      return Error("comes before POST_VALIDATION, which may still want the gradients of the step before");
    return absl::OkStatus();
  }

  absl::Status CheckDiscarded(const Action& a) const {
    if (program_.validation != Validation::kGuessWrong || !(IsCompute(a.kind) || IsStageTransfer(a.kind)))
      return absl::OkStatus();
    const bool discarded = a.flags & kDiscarded;
    if (open_ && !discarded) return Error("comes before POST_VALIDATION, but is not discarded by it");
    if (!open_ && discarded && IsCompute(a.kind))
      return Error("is discarded, but comes after POST_VALIDATION, when that is known");
    return absl::OkStatus();
  }

  // All that the rank's stages have begun.
  void ReleaseDiscarded() {
    for (int copy = 0; copy < placement_.copies(); ++copy) {
      for (int s = 0; s <= last_; ++s) {
        if (placement_.RankOf(StageId(s), copy).index() != rank_) continue;
        for (int i = 0; i < program_.micro_batches; ++i) {
          const Action a{.copy = static_cast<int16_t>(copy), .stage = StageId(s), .micro_batch = MicroBatch(i)};
          for (int pool = 0; pool < kPoolCount; ++pool) Release(static_cast<Pool>(pool), a, s);
          Of(s, a) = Cell{};
        }
      }
    }
  }

  // The other end has begun it before it knew: a message without content goes out, one that nobody reads comes in.
  absl::Status Drain(const Action& a, int s) {
    if (IsSend(a.kind)) return absl::OkStatus();
    const Pool pool = a.kind == ActionKind::kRecvForward ? Pool::kInput : Pool::kOutputGradient;
    RETURN_IF_ERROR(Bind(pool, s, a, a.slot));
    Release(pool, a, s);
    return absl::OkStatus();
  }

  // A stage computes with whole parameters, and adds no gradient to those that have been reduced.
  absl::Status VisitParameters(const Action& a) {
    if (!a.stage.valid()) return absl::OkStatus();
    Parameters& parameters = parameters_[placement_.Index(a.stage, a.copy)];
    switch (a.kind) {
      case ActionKind::kUnshard:
        if (!std::exchange(parameters.sharded, false)) return Error("finds its stage unsharded already");
        break;
      case ActionKind::kReshard:
        if (std::exchange(parameters.sharded, true)) return Error("comes before its stage's UNSHARD");
        break;
      case ActionKind::kReduceGradient:
        parameters.reduced = true;
        break;
      default:
        if (!IsCompute(a.kind)) break;
        if (parameters.sharded) return Error("comes when its stage is sharded");
        if (parameters.reduced && a.kind != ActionKind::kForward && a.kind != ActionKind::kInputGradient)
          return Error("comes after its stage's REDUCE_GRAD");
    }
    return absl::OkStatus();
  }

  absl::Status Visit(const Action& a) {
    const int s = a.stage.value();
    if (!open_ && (a.flags & kDiscarded)) return Drain(a, s);
    switch (a.kind) {
      case ActionKind::kForward:
        return VisitForward(a, s);
      case ActionKind::kBackward:
      case ActionKind::kInputGradient:
        return VisitInputGradient(a, s);
      case ActionKind::kWeightGradient:
        if (!Of(s, a).input_gradient_done) return Error("comes before its I");
        ReleaseAll(a, s);
        return absl::OkStatus();
      case ActionKind::kRecvForward:
        return Bind(Pool::kInput, s, a, a.slot);
      case ActionKind::kRecvBackward:
        return Bind(Pool::kOutputGradient, s, a, a.slot);
      case ActionKind::kSendForward:
        if (!Of(s, a).forward_done) return Error("comes before the F that makes its message");
        return CheckSent(Pool::kOutput, a, s);
      case ActionKind::kSendBackward:
        if (!Of(s, a).input_gradient_done) return Error("comes before the B or I that makes its message");
        return CheckSent(Pool::kInputGradient, a, s);
      default:
        return absl::OkStatus();
    }
  }

  absl::Status VisitForward(const Action& a, int s) {
    const ForwardPath path = program_.path();
    if (path.Previous(a.stage, a.micro_batch) && Held(Pool::kInput, s, a) == kNone)
      return Error("comes before its input");
    if (const auto next = path.Next(a.stage, a.micro_batch)) {
      const bool local = Local(next->stage.value(), a);
      Action held_by = a;  // on the same rank the slot is the next stage's own
      if (local) held_by.micro_batch = next->micro_batch;
      RETURN_IF_ERROR(Bind(local ? Pool::kInput : Pool::kOutput, local ? next->stage.value() : s, held_by, a.slot));
    }
    RETURN_IF_ERROR(Bind(Pool::kStash, s, a, a.stash));
    Of(s, a).forward_done = true;
    if (program_.pass == PassKind::kForwardOnly) ReleaseAll(a, s);
    return absl::OkStatus();
  }

  absl::Status VisitInputGradient(const Action& a, int s) {
    if (!Of(s, a).forward_done) return Error("comes before its F");
    if (s < last_ && Held(Pool::kOutputGradient, s, a) == kNone) return Error("comes before its gradient");
    if (s > 0) {
      const bool local = Local(s - 1, a);
      RETURN_IF_ERROR(Bind(local ? Pool::kOutputGradient : Pool::kInputGradient, local ? s - 1 : s, a, a.slot));
    }
    RETURN_IF_ERROR(Bind(Pool::kGradientStash, s, a, a.stash));
    Of(s, a).input_gradient_done = true;
    if (a.kind == ActionKind::kBackward) ReleaseAll(a, s);
    return absl::OkStatus();
  }

  absl::Status CheckSent(Pool pool, const Action& a, int s) {
    const int32_t held = Held(pool, s, a);
    if (held != a.slot) return Error("sends slot ", a.slot, " of ", PoolName(pool), ", but its message is in ", held);
    Release(pool, a, s);
    return absl::OkStatus();
  }

  int32_t& Held(Pool pool, int stage, const Action& a) { return Of(stage, a).slot[static_cast<size_t>(pool)]; }
  int32_t& Holder(Pool pool, int stage, const Action& a, int32_t slot) {
    return holders_[offsets_[placement_.Index(StageId(stage), a.copy) * kPoolCount + static_cast<size_t>(pool)] + slot];
  }

  absl::Status Bind(Pool pool, int stage, const Action& a, int32_t slot) {
    int32_t& holder = Holder(pool, stage, a, slot);
    if (holder != kNone) {
      return Error("writes slot ", slot, " of ", PoolName(pool), " of stage ", stage, ", which micro-batch ", holder,
                   " still holds");
    }
    holder = a.micro_batch.value();
    Held(pool, stage, a) = slot;
    live_bytes_ += Bytes(pool, stage);
    live_bytes_max_ = std::max(live_bytes_max_, live_bytes_);
    return absl::OkStatus();
  }
  void Release(Pool pool, const Action& a, int stage) {
    int32_t& slot = Held(pool, stage, a);
    if (slot == kNone) return;
    Holder(pool, stage, a, slot) = kNone;
    slot = kNone;
    live_bytes_ -= Bytes(pool, stage);
  }
  void ReleaseAll(const Action& a, int stage) {
    for (Pool pool : {Pool::kInput, Pool::kOutputGradient, Pool::kStash, Pool::kGradientStash}) Release(pool, a, stage);
  }
  int64_t Bytes(Pool pool, int stage) const {
    return options_.stage_bytes.empty() ? 0 : options_.stage_bytes[stage].slot[static_cast<size_t>(pool)];
  }

  const Program& program_;
  const Placement& placement_;
  const VerifierOptions& options_;
  const int last_;
  std::vector<Cell> cells_;  // per (copy, stage, micro-batch)
  std::vector<Parameters> parameters_;
  std::vector<size_t> offsets_;   // into holders_, per pool
  std::vector<int32_t> holders_;  // the micro-batch that holds each slot
  size_t rank_ = 0, entry_ = 0;
  bool summed_ = false, stepped_ = false;  // the norm, OPTIMIZER_STEP have been seen
  bool open_ = false;                      // it is not yet known whether the step before was right
  uint32_t seen_ = 0;                      // kinds of action seen in this list
  int64_t live_bytes_ = 0, live_bytes_max_ = 0;
};

}  // namespace

absl::Status CheckOrder(const Program& program, const VerifierOptions& options, VerifyReport& report) {
  OrderCheck check(program, options);
  for (size_t r = 0; r < program.ranks.size(); ++r) {
    RETURN_IF_ERROR(check.Walk(r, report.ranks[r].live_bytes_max));
  }
  return absl::OkStatus();
}

std::string FindDescendingWeightGradient(const Program& program, int gradient_groups) {
  const int64_t groups = gradient_groups, m = program.micro_batches;
  std::vector<std::array<int32_t, 2>> last(program.pools.size() * groups, {-1, -1});  // by W or B, by I or B
  for (size_t r = 0; r < program.ranks.size(); ++r) {
    for (const Action& a : program.ranks[r]) {
      if (!IsCompute(a.kind) || a.kind == ActionKind::kForward) continue;
      const bool head = a.stage.value() + 1 == program.placement.stages();
      const std::array<bool, 2> adds = {a.kind != ActionKind::kInputGradient,
                                        head && a.kind != ActionKind::kWeightGradient};
      const int64_t group = a.micro_batch.value() * groups / m;
      for (size_t pass = 0; pass < adds.size(); ++pass) {
        if (!adds[pass]) continue;
        int32_t& before = last[program.placement.Index(a.stage, a.copy) * groups + group][pass];
        if (a.micro_batch.value() < before) {
          return absl::StrCat("rank ", r, " adds weight gradients out of order: ", ToString(a), " after micro-batch ",
                              before, " of the same gradient group");
        }
        before = a.micro_batch.value();
      }
    }
  }
  return "";
}

}  // namespace sluice::verifier
