// Pass 1. Plays the schedule in virtual time (F, I, W take one unit, B two, a transfer little) with the slots that the
// pools will have. The order in which things happen there is one global order in which every action comes after all
// that it waits for and each SEND stands beside its RECV; a rank's list is that order cut down to the rank. A cycle of
// waits would need an action that comes before itself, whichever queues are assigned later.
//
// A message moves when it is made and its receiver has a free slot. A pool that turns out too small for the schedule's
// order (one that consumes messages in another order than they are sent) grows when nothing else can move.

#include <algorithm>
#include <deque>
#include <limits>
#include <optional>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "scheduler/lowering.h"
#include "scheduler/lowering/calendar.h"

namespace sluice {
namespace {

// What has happened to one micro-batch in one stage.
enum Progress : uint8_t {
  kInputHere = 1,
  kGradientHere = 2,
  kForwardDone = 4,
  kInputGradientDone = 8,
  kListed = 16,  // used by the check before the run: bits 16 ... 128 are F, B, I, W
};

// One end of the stage boundaries: messages of one kind on their way into one stage, and the slots at both ends.
struct Inbox {
  bool local = false;  // same rank: the producer writes into the slot
  int slots = 0;       // at the receiver
  int held = 0;
  int held_most = 0;
  int send_slots = 0;
  absl::InlinedVector<MicroBatch, 2> waiting;  // for which it was made, not yet moved; in the order made
};

// An inbox in which a message may be able to move now: it was just made, or a slot was given back.
struct Movable {
  StageId stage;
  int copy;
  bool forward;
};

// A message on its way.
struct Arrival {
  int64_t time;
  StageId stage;
  int copy;
  MicroBatch micro_batch;
  bool forward;
};

struct RankState {
  size_t next = 0;           // in the schedule's list
  size_t running_begin = 0;  // [running_begin, next) is running
  bool busy = false;
  bool queued = false;         // is in `candidates_`
  bool decision_here = false;  // about the step before, from the next rank
};

// A little latency puts the messages of ranks that would otherwise end in the same moment into the order in which they
// really come.
constexpr int64_t kComputeTime = 16;
constexpr int64_t kLatency = 1;

static_assert(4 * kComputeTime <= Calendar::kMoments, "a pair of two B has to fit into the ring");

int64_t VirtualTime(ActionKind kind) {
  return kind == ActionKind::kBackward ? 2 * kComputeTime : IsCompute(kind) ? kComputeTime : 0;
}

class TransferPass {
 public:
  TransferPass(const Schedule& schedule, const LoweringOptions& options)
      : schedule_(schedule), placement_(schedule.placement), options_(options) {}

  absl::StatusOr<Program> Run() {
    RETURN_IF_ERROR(CheckSchedule());
    Prepare();
    for (size_t r = 0; r < schedule_.ranks.size(); ++r) Consider(r);
    while (true) {
      for (size_t i = 0; i < candidates_.size(); ++i) {
        states_[candidates_[i]].queued = false;
        StartWhatCan(candidates_[i]);
      }
      candidates_.clear();
      if (!running_.empty() || !arrivals_.empty()) {
        AdvanceTime();
      } else if (!GrowPools()) {
        break;
      }
    }
    RETURN_IF_ERROR(CheckFinished());
    SetPools();
    return std::move(program_);
  }

 private:
  size_t Index(const Action& a) const { return placement_.Index(a.stage, a.copy); }
  uint8_t& ProgressOf(StageId stage, int copy, MicroBatch i) {
    return progress_[placement_.Index(stage, copy) * schedule_.micro_batches + i.index()];
  }
  uint8_t& ProgressOf(const Action& a) { return ProgressOf(a.stage, a.copy, a.micro_batch); }
  Inbox& InboxOf(StageId stage, int copy, bool forward) {
    return (forward ? activations_ : gradients_)[placement_.Index(stage, copy)];
  }
  bool IsFirst(StageId stage) const { return stage.value() == 0; }
  bool IsLast(StageId stage) const { return stage.value() == placement_.stages() - 1; }

  // Every compute action in range, on its rank, and not twice.
  absl::Status CheckSchedule();
  void Prepare();
  void Reserve();
  void SetPools();

  std::optional<StageItem> Next(const Action& a) const { return schedule_.path().Next(a.stage, a.micro_batch); }
  // The stage that sends into an inbox.
  StageId SenderOf(StageId stage, bool forward) const {
    const int stages = placement_.stages();
    return StageId((stage.value() + (forward ? stages - 1 : 1)) % stages);
  }
  bool HasInbox(StageId stage, bool forward) const {
    return forward ? !IsFirst(stage) || schedule_.groups > 0 : !IsLast(stage) && schedule_.groups == 0;
  }

  // The inbox that a compute action writes into, or nullptr at the ends of the pipeline.
  Inbox* Target(const Action& a) {
    if (a.kind == ActionKind::kForward) {
      const auto next = Next(a);
      return next ? &InboxOf(next->stage, a.copy, true) : nullptr;
    }
    const bool gradient = a.kind == ActionKind::kBackward || a.kind == ActionKind::kInputGradient;
    if (gradient && !IsFirst(a.stage)) return &InboxOf(StageId(a.stage.value() - 1), a.copy, false);
    return nullptr;
  }

  bool CanStart(const Action& a, size_t rank) {
    if (a.kind == ActionKind::kPostValidation) return rank + 1 == states_.size() || states_[rank].decision_here;
    if (!IsCompute(a.kind)) return true;
    const uint8_t progress = ProgressOf(a);
    if (const Inbox* target = Target(a);
        target != nullptr && !target->local && static_cast<int>(target->waiting.size()) >= target->send_slots) {
      return false;
    }
    switch (a.kind) {
      case ActionKind::kForward:
        return progress & kInputHere;
      case ActionKind::kBackward:
      case ActionKind::kInputGradient:
        return (progress & kGradientHere) && (progress & kForwardDone);
      case ActionKind::kWeightGradient:
        return progress & kInputGradientDone;
      default:
        return true;
    }
  }

  // Starts the rank's next action, or OVERLAP_F_B pair, if it is idle and all inputs are there.
  void StartWhatCan(size_t rank);
  // What has been decided about the step before, on its way down the ranks.
  void AppendPostValidation(size_t rank);
  void Append(size_t rank, const Action& action) { program_.ranks[rank].push_back(action); }
  void Take(Inbox& inbox) { inbox.held_most = std::max(inbox.held_most, ++inbox.held); }

  // To the next moment at which something ends: all ends first, then the messages that can move.
  void AdvanceTime();
  void End(const Action& action);
  void Produce(const StageItem& to, int copy, bool forward);
  void Free(StageId stage, int copy, bool forward);
  void MoveMessages(StageId stage, int copy, bool forward);
  void Consider(size_t rank) {
    if (std::exchange(states_[rank].queued, true)) return;
    candidates_.push_back(rank);
  }

  // When nothing can move: one slot more where the next actions of the ranks need a waiting message, else where any
  // message waits. False if no message waits.
  bool GrowPools();
  absl::Status CheckFinished();

  const Schedule& schedule_;
  const Placement& placement_;
  const LoweringOptions& options_;
  Program program_;
  std::vector<RankState> states_;
  std::vector<uint8_t> progress_;
  std::vector<Inbox> activations_, gradients_;  // per Placement::Index of the receiving stage
  std::vector<int> in_flight_, gradients_in_flight_;
  std::vector<size_t> candidates_;
  std::vector<Movable> movable_;
  std::deque<Arrival> arrivals_;  // ascending in time
  Calendar running_;
  int64_t now_ = 0;
};

absl::Status TransferPass::CheckSchedule() {
  const int m = schedule_.micro_batches;
  CHECK_EQ(schedule_.ranks.size(), static_cast<size_t>(placement_.ranks()));
  progress_.assign(static_cast<size_t>(placement_.stages()) * placement_.copies() * m, 0);
  for (size_t r = 0; r < schedule_.ranks.size(); ++r) {
    for (const Action& a : schedule_.ranks[r]) {
      const auto error = [&](auto... what) {
        return absl::InvalidArgumentError(absl::StrCat("rank ", r, ": ", ToString(a), " ", what...));
      };
      if (a.kind == ActionKind::kPostValidation) continue;
      if (IsTransfer(a.kind) || a.kind >= ActionKind::kCollective) return error("is not for a bare schedule");
      if (a.stage.value() < 0 || a.stage.value() >= placement_.stages() || a.copy < 0 || a.copy >= placement_.copies())
        return error("is out of range: ", placement_.stages(), " stages, ", placement_.copies(), " copies");
      if (placement_.RankOf(a.stage, a.copy).index() != r)
        return error("belongs on rank ", placement_.RankOf(a.stage, a.copy).value());
      if (!IsCompute(a.kind)) continue;
      if (a.micro_batch.value() < 0 || a.micro_batch.value() >= m)
        return error("is out of range: ", m, " micro-batches");
      const uint8_t bit = kListed << static_cast<int>(a.kind);
      if (ProgressOf(a) & bit) return error("stands twice in the list");
      ProgressOf(a) |= bit;
    }
  }
  return absl::OkStatus();
}

// Most micro-batches per stage between their I (or B) and W, like InFlight for what a gradient's slot holds.
std::vector<int> GradientsInFlight(const Schedule& schedule) {
  const Placement& placement = schedule.placement;
  std::vector<int> count(static_cast<size_t>(placement.stages()) * placement.copies()), most(count.size());
  for (const auto& actions : schedule.ranks) {
    for (const Action& a : actions) {
      if (!IsCompute(a.kind) || a.kind == ActionKind::kForward) continue;
      const size_t index = placement.Index(a.stage, a.copy);
      if (a.kind != ActionKind::kWeightGradient) most[index] = std::max(most[index], ++count[index]);
      if (a.kind != ActionKind::kInputGradient) --count[index];
    }
  }
  return most;
}

// Room for a rank's actions, both ends of its transfers, and the end of the step.
void TransferPass::Reserve() {
  std::vector<size_t> sizes(schedule_.ranks.size());
  for (size_t r = 0; r < schedule_.ranks.size(); ++r) {
    sizes[r] += schedule_.ranks[r].size() + options_.tied_tensors.size() + 2;
    for (const Action& a : schedule_.ranks[r]) {
      const bool gradient = a.kind == ActionKind::kBackward || a.kind == ActionKind::kInputGradient;
      if (a.kind != ActionKind::kForward && !gradient) continue;
      if (gradient ? IsFirst(a.stage) : IsLast(a.stage)) continue;
      const size_t to = placement_.RankOf(StageId(a.stage.value() + (gradient ? -1 : 1)), a.copy).index();
      if (to == r) continue;
      ++sizes[r];
      ++sizes[to];
    }
  }
  for (size_t r = 0; r < sizes.size(); ++r) program_.ranks[r].reserve(sizes[r]);
}

void TransferPass::Prepare() {
  const int stages = placement_.stages(), m = schedule_.micro_batches;
  program_.name = schedule_.name;
  program_.pass = schedule_.pass;
  program_.micro_batches = m;
  program_.groups = schedule_.groups;
  program_.replicas = options_.replicas;
  program_.placement = placement_;
  program_.ranks.resize(schedule_.ranks.size());
  Reserve();
  states_.resize(schedule_.ranks.size());
  std::fill(progress_.begin(), progress_.end(), 0);
  in_flight_ = InFlight(schedule_);
  gradients_in_flight_ = GradientsInFlight(schedule_);
  activations_.resize(in_flight_.size());
  gradients_.resize(in_flight_.size());
  const auto prepare = [&](Inbox& inbox, bool local, int in_flight) {
    inbox.local = local;
    inbox.slots = std::min(m, in_flight + options_.receive_ahead);
    inbox.send_slots = std::min(m, options_.send_slots);
  };
  for (int copy = 0; copy < placement_.copies(); ++copy) {
    for (int s = 0; s < stages; ++s) {
      const size_t index = placement_.Index(StageId(s), copy);
      const PipelineRank rank = placement_.RankOf(StageId(s), copy);
      // The tokens of all groups wait for the first stage while it does the round before.
      const int waiting = s > 0 ? in_flight_[index] : schedule_.groups;
      if (HasInbox(StageId(s), true)) {
        prepare(activations_[index], placement_.RankOf(SenderOf(StageId(s), true), copy) == rank, waiting);
      }
      if (s < stages - 1) {
        prepare(gradients_[index], placement_.RankOf(StageId(s + 1), copy) == rank, gradients_in_flight_[index]);
      }
      for (int i = 0; i < m; ++i) {
        if (!schedule_.path().Previous(StageId(s), MicroBatch(i))) {
          ProgressOf(StageId(s), copy, MicroBatch(i)) |= kInputHere;
        }
        if (s == stages - 1) ProgressOf(StageId(s), copy, MicroBatch(i)) |= kGradientHere;
      }
    }
  }
}

void TransferPass::StartWhatCan(size_t rank) {
  RankState& state = states_[rank];
  const auto& list = schedule_.ranks[rank];
  while (!state.busy && state.next < list.size()) {
    size_t end = state.next + 1;
    if ((list[state.next].flags & kOverlapsNext) && end < list.size() && IsCompute(list[end].kind)) ++end;
    for (size_t k = state.next; k < end; ++k) {
      if (!CanStart(list[k], rank)) return;
    }
    int64_t duration = 0;
    state.running_begin = state.next;
    for (; state.next < end; ++state.next) {
      const Action& action = list[state.next];
      if (action.kind == ActionKind::kPostValidation) AppendPostValidation(rank);
      // Those of several copies come from a pass of their own, which knows when the other ends are there.
      const bool append = action.kind != ActionKind::kReduceGradient || placement_.copies() == 1;
      if (append) Append(rank, action);
      duration += VirtualTime(action.kind);
      if (Inbox* target = Target(action); target != nullptr && target->local) Take(*target);
    }
    if (duration == 0) continue;
    state.busy = true;
    running_.Add(now_ + duration, rank);
  }
}

void TransferPass::AppendPostValidation(size_t rank) {
  if (rank == 0) return;
  Append(rank, {.kind = ActionKind::kSendValidation, .peer = PipelineRank(static_cast<int>(rank) - 1)});
  Append(rank - 1, {.kind = ActionKind::kRecvValidation, .peer = PipelineRank(static_cast<int>(rank))});
  states_[rank - 1].decision_here = true;
  Consider(rank - 1);
}

void TransferPass::AdvanceTime() {
  constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
  now_ = std::min(running_.empty() ? kNever : running_.Next(now_), arrivals_.empty() ? kNever : arrivals_.front().time);
  for (; !arrivals_.empty() && arrivals_.front().time == now_; arrivals_.pop_front()) {
    const Arrival& arrival = arrivals_.front();
    ProgressOf(arrival.stage, arrival.copy, arrival.micro_batch) |= arrival.forward ? kInputHere : kGradientHere;
    Consider(placement_.RankOf(arrival.stage, arrival.copy).index());
  }
  for (const size_t rank : running_.Take(now_)) {
    RankState& state = states_[rank];
    for (size_t k = state.running_begin; k < state.next; ++k) End(schedule_.ranks[rank][k]);
    state.busy = false;
    Consider(rank);
  }
  for (const Movable& movable : std::exchange(movable_, {})) {
    MoveMessages(movable.stage, movable.copy, movable.forward);
  }
}

void TransferPass::End(const Action& a) {
  uint8_t& progress = ProgressOf(a);
  switch (a.kind) {
    case ActionKind::kForward:
      progress |= kForwardDone;
      if (const auto next = Next(a)) Produce(*next, a.copy, true);
      if (schedule_.pass == PassKind::kForwardOnly && schedule_.path().Previous(a.stage, a.micro_batch)) {
        Free(a.stage, a.copy, true);
      }
      break;
    case ActionKind::kBackward:
    case ActionKind::kInputGradient:
      progress |= kInputGradientDone;
      if (!IsFirst(a.stage)) Produce({StageId(a.stage.value() - 1), a.micro_batch}, a.copy, false);
      if (a.kind == ActionKind::kInputGradient) break;
      [[fallthrough]];
    case ActionKind::kWeightGradient:
      Free(a.stage, a.copy, true);
      Free(a.stage, a.copy, false);
      break;
    default:
      break;
  }
}

void TransferPass::Produce(const StageItem& to, int copy, bool forward) {
  Inbox& inbox = InboxOf(to.stage, copy, forward);
  if (inbox.local) {
    ProgressOf(to.stage, copy, to.micro_batch) |= forward ? kInputHere : kGradientHere;
    return;
  }
  inbox.waiting.push_back(to.micro_batch);
  movable_.push_back({to.stage, copy, forward});
}

void TransferPass::Free(StageId stage, int copy, bool forward) {
  if (!HasInbox(stage, forward)) return;
  Inbox& inbox = InboxOf(stage, copy, forward);
  --inbox.held;
  if (!inbox.waiting.empty()) movable_.push_back({stage, copy, forward});
}

void TransferPass::MoveMessages(StageId stage, int copy, bool forward) {
  Inbox& inbox = InboxOf(stage, copy, forward);
  const StageId from = SenderOf(stage, forward);
  const PipelineRank sender = placement_.RankOf(from, copy), receiver = placement_.RankOf(stage, copy);
  while (!inbox.waiting.empty() && inbox.held < inbox.slots) {
    const MicroBatch i = inbox.waiting.front();
    inbox.waiting.erase(inbox.waiting.begin());
    Take(inbox);
    Action action{.copy = static_cast<int16_t>(copy)};
    action.kind = forward ? ActionKind::kSendForward : ActionKind::kSendBackward;
    action.stage = from;
    action.micro_batch = forward ? schedule_.path().Previous(stage, i)->micro_batch : i;
    action.peer = receiver;
    Append(sender.index(), action);
    action.kind = forward ? ActionKind::kRecvForward : ActionKind::kRecvBackward;
    action.stage = stage;
    action.micro_batch = i;
    action.peer = sender;
    Append(receiver.index(), action);
    arrivals_.push_back({now_ + kLatency, stage, copy, i, forward});
    Consider(sender.index());
  }
}

bool TransferPass::GrowPools() {
  bool grown = false;
  const auto grow = [&](StageId stage, int copy, bool forward) {
    if (!HasInbox(stage, forward)) return;
    Inbox& inbox = InboxOf(stage, copy, forward);
    if (inbox.waiting.empty()) return;
    ++inbox.slots;
    grown = true;
    MoveMessages(stage, copy, forward);
  };
  for (size_t r = 0; r < states_.size(); ++r) {
    if (states_[r].next == schedule_.ranks[r].size()) continue;
    const Action& next = schedule_.ranks[r][states_[r].next];
    if (!next.stage.valid()) continue;
    for (const bool forward : {true, false}) grow(next.stage, next.copy, forward);
  }
  for (int copy = 0; copy < placement_.copies() && !grown; ++copy) {
    for (int s = 0; s < placement_.stages(); ++s) {
      for (const bool forward : {true, false}) grow(StageId(s), copy, forward);
    }
  }
  return grown;
}

absl::Status TransferPass::CheckFinished() {
  std::string stuck;
  for (size_t r = 0; r < states_.size(); ++r) {
    if (states_[r].next == schedule_.ranks[r].size()) continue;
    const Action& next = schedule_.ranks[r][states_[r].next];
    const uint8_t progress = next.stage.valid() ? ProgressOf(next) : uint8_t{0};
    const char* need = !next.stage.valid()                        ? "the rank behind it"
                       : next.kind == ActionKind::kForward        ? "its input"
                       : next.kind == ActionKind::kWeightGradient ? "its I"
                       : !(progress & kForwardDone)               ? "its F"
                                                                  : "the gradient from the next stage";
    absl::StrAppend(&stuck, stuck.empty() ? "" : "; ", "rank ", r, " stands at ", ToString(next), ", which waits for ",
                    need);
  }
  if (stuck.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the order of schedule '", schedule_.name, "' can't run: ", stuck));
}

void TransferPass::SetPools() {
  program_.pools.assign(in_flight_.size(), {});
  const bool training = schedule_.pass == PassKind::kTraining;
  for (size_t index = 0; index < in_flight_.size(); ++index) {
    const int stage = static_cast<int>(index) % placement_.stages();
    const auto size = [&](Pool pool) -> int32_t& { return program_.pools[index][static_cast<size_t>(pool)]; };
    const auto received = [](const Inbox& inbox) { return inbox.local ? inbox.held_most : inbox.slots; };
    if (stage > 0) {
      const Inbox& out = gradients_[index - 1];
      if (training && !out.local) size(Pool::kInputGradient) = out.send_slots;
    }
    if (HasInbox(StageId(stage), true)) size(Pool::kInput) = received(activations_[index]);
    const bool last = stage == placement_.stages() - 1;
    if (!last || schedule_.groups > 0) {
      const Inbox& out = activations_[last ? index - stage : index + 1];
      if (!out.local) size(Pool::kOutput) = out.send_slots;
    }
    if (!last && training) size(Pool::kOutputGradient) = received(gradients_[index]);
    size(Pool::kStash) = in_flight_[index];
    size(Pool::kGradientStash) = gradients_in_flight_[index];
  }
}

}  // namespace

absl::StatusOr<Program> AddTransfers(const Schedule& schedule, const LoweringOptions& options) {
  CHECK_GE(options.send_slots, 1);
  CHECK_GE(options.receive_ahead, 0);
  CHECK_GE(options.replicas, 1);
  return TransferPass(schedule, options).Run();
}

}  // namespace sluice
