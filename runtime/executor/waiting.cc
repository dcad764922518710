// The executor's waits, how a step ends, and how it fails.

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/status.h"
#include "runtime/executor/executor.h"

namespace sluice {
namespace {

// What stands in the list, but asks nothing of the device.
bool LeavesNoSpan(ActionKind kind) { return kind == ActionKind::kUnshard || kind == ActionKind::kReshard; }

Nanoseconds WaitLimit(const Watchdog& watchdog) {
  return std::max(watchdog.limit, static_cast<Nanoseconds>(watchdog.multiple * watchdog.predicted_step));
}

}  // namespace

// Compute actions of a rank run in order on one stream: only transfers are waited for.
absl::Status Executor::WaitForTransfer(int32_t place) {
  if (place < 0 || !IsTransfer(ActionAt(place).kind)) return absl::OkStatus();
  if (options_.transport->slots_move()) return WaitForEvent(events_[place], ActionAt(place));
  after_.push_back(events_[place]);
  return absl::OkStatus();
}

uint64_t Executor::Moves() const {
  const auto& elsewhere = options_.watchdog.moves_elsewhere;
  return options_.transport->bytes_moved() + options_.abort->moves() + (elsewhere ? elsewhere() : 0);
}

// Nothing: for the watchdog's limit nothing has moved. It looks a few times, so that the limit counts from about the
// last move; what moved before the first look is not asked for, since most waits are over by then.
std::optional<size_t> Executor::WaitWhileItMoves(absl::Span<const EventRef> events) const {
  constexpr int kLooks = 4;
  const Nanoseconds limit = WaitLimit(options_.watchdog);
  uint64_t seen = 0;
  for (int look = 0; look < kLooks; ++look) {
    const std::optional<size_t> done = options_.world->WaitAny(events, options_.world->Now() + limit / kLooks);
    if (done.has_value()) return done;
    const uint64_t moves = Moves();
    if (look > 0 && moves != seen) look = 0;
    seen = moves;
  }
  return std::nullopt;
}

absl::Status Executor::WaitForEvent(const EventRef& event, const Action& awaited) {
  if (!event->Done()) {
    const Action& at_hand = ActionAt(place_);
    options_.abort->SetWaiting(world_rank_, at_hand, awaited);
    const std::array<EventRef, 2> events = {event, options_.abort->event()};
    const Nanoseconds began = options_.world->Now();
    const std::optional<size_t> done = WaitWhileItMoves(events);
    if (!done.has_value()) {
      const double seconds = static_cast<double>(options_.world->Now() - began) / kSecond;
      const std::string channel =
          IsTransfer(awaited.kind)
              ? absl::StrCat(" (channel ", ChannelOf(options_.layout, program_number_, awaited).value(), ", queue ",
                             program_->queues[awaited.queue.index()].name, ")")
              : "";
      return Located(at_hand, absl::DeadlineExceededError(absl::StrFormat("waited %.3f s for %s%s to end", seconds,
                                                                          WithPeer(awaited), channel)));
    }
    if (*done == 1) return options_.abort->cause();
    options_.abort->SetIssuing(world_rank_, at_hand);
  }
  if (absl::Status status = event->status(); !status.ok()) return Located(awaited, status);
  return absl::OkStatus();
}

absl::Status Executor::Located(const Action& action, const absl::Status& status) const {
  return Annotate(status, absl::StrCat(options_.layout.grid.Describe(world_rank_), ", ", WithPeer(action)));
}

bool Executor::HasRun(StageId stage) const {
  return std::any_of(computes_.begin(), computes_.end(), [&](int32_t place) { return ActionAt(place).stage == stage; });
}

absl::Status Executor::EndStep() {
  place_ = static_cast<int32_t>(list_->size()) - 1;
  for (const auto& stage : options_.model->stages()) {
    if (const TensorView losses = stage->losses()) {
      options_.stream->CopyToHost(losses, losses_.data());
      result_.losses = absl::MakeConstSpan(losses_).first(std::min<size_t>(losses_.size(), program_->micro_batches));
    }
    if (const TensorView drawn = stage->drawn(); drawn && !input_->drawn.empty()) {
      const int64_t width = drawn.columns();
      CHECK_EQ(static_cast<int64_t>(input_->drawn.size()), program_->micro_batches * width) << "room for what is drawn";
      options_.stream->CopyToHost({drawn.data, drawn.dtype, {program_->micro_batches, width}}, input_->drawn.data());
    }
    if (input_->logits.empty() || !HasRun(stage->id())) continue;  // the other copy of the model may have
    if (const TensorView logits = stage->logits()) {
      CHECK_GE(static_cast<int64_t>(input_->logits.size()), logits.bytes()) << "no room for the logits";
      options_.stream->CopyToHost(logits, input_->logits.data());
    }
  }
  if (program_->pass == PassKind::kTraining) {
    const TensorView control = options_.model->control();
    CHECK_EQ(control.bytes(), static_cast<int64_t>(sizeof(control_)));
    options_.stream->CopyToHost(control, &control_);
  }
  const EventRef copied = options_.stream->Record();
  for (size_t place = 0; place < list_->size(); ++place) {
    RETURN_IF_ERROR(WaitForEvent(events_[place], ActionAt(place)));
  }
  if (!list_->empty()) RETURN_IF_ERROR(WaitForEvent(copied, list_->back()));
  TakeSpans();
  recorder_.Settle();
  for (EventRef& event : events_) event = nullptr;
  exchanged_.clear();
  finished_ = stepped_ = last_before_step_ = optimizer_mark_ = norm_mark_ = revise_mark_ = decision_read_ = nullptr;
  result_.control = control_;
  result_.spans = spans_;
  return absl::OkStatus();
}

void Executor::TakeSpans() {
  for (size_t place = 0; place < list_->size(); ++place) {
    const Action& action = ActionAt(place);
    if (LeavesNoSpan(action.kind)) continue;
    Span span{.rank = options_.rank,
              .action = action,
              .begin_ns = events_[place]->began(),
              .end_ns = events_[place]->ended(),
              .bytes = IsTransfer(action.kind) ? MessageBytes(options_.layout, program_number_, action) : 0};
    // It consists of many pieces, of which the event knows the last.
    if (action.kind == ActionKind::kOptimizerStep) {
      span.begin_ns = std::max(optimizer_mark_->ended(), last_before_step_ ? last_before_step_->ended() : 0);
    }
    if (action.kind == ActionKind::kNorm) span.begin_ns = norm_mark_->ended();
    if (action.kind == ActionKind::kPostValidation && revise_mark_) span.begin_ns = revise_mark_->ended();
    for (const Exchanges& exchanges : exchanges_) {
      if (static_cast<size_t>(exchanges.place) != place) continue;
      span.begin_ns = exchanges.first->began();
      span.bytes = exchanges.bytes;
    }
    spans_.push_back(span);
  }
}

absl::Status Executor::Fail(const absl::Status& status) {
  options_.abort->Abort(status);
  options_.transport->Abort(options_.abort->cause());
  ComeToRest();
  recorder_.Settle();
  return options_.abort->cause();
}

// Nothing that was issued may touch memory after Run() has returned. A device that hangs is left after a while.
void Executor::ComeToRest() {
  const Nanoseconds deadline = options_.world->Now() + options_.watchdog.rest;
  const auto rests = [&](const EventRef& event) {
    return !event || event->Done() || options_.world->WaitAny({&event, 1}, deadline).has_value();
  };
  if (!std::all_of(events_.begin(), events_.end(), rests)) return;
  rests(options_.stream->Record());  // an action that failed half-way has no event
}

}  // namespace sluice
