// The executor's part in post-validation of the gradient norm (scheduler/README.md): the norms' way up the ranks, the
// decision's way down, and how a rank goes over to the program of a wrong guess.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "runtime/executor/executor.h"

namespace sluice {

absl::Status Executor::PreparePostValidation() {
  static_assert(sizeof(StepControl) == kDecisionBytes);
  const PipelineLayout& layout = options_.layout;
  for (size_t i = 0; i < layout.programs.size(); ++i) {
    const Program& program = *layout.programs[i];
    if (program.validation == Validation::kNone) continue;
    if (layout.norm_bytes <= 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("program ", program.name, " is post-validated, but the layout has no size for the norms"));
    }
    if (program.validation == Validation::kGuessWrong) wrong_guess_ = i;
    if (decision_stream_ == nullptr) decision_stream_ = options_.device->NewStream("decisions");
  }
  return absl::OkStatus();
}

absl::StatusOr<EventRef> Executor::AddNorm() {
  norm_ = place_;
  after_.clear();
  RETURN_IF_ERROR(WaitForTransfer(recv_norm_));
  norm_mark_ = options_.stream->Record();
  PutTiedTogether();
  options_.model->FinishGradients({});
  const Buffer& norms = slots_.norms().slot.buffer;
  return options_.model->AddNorm({norms.data(), DType::kF32, {norms.bytes() / 4}}, after_);
}

// Once a step: before the slot is sent on, or when the decision is wanted. It is then also the model's own control().
absl::Status Executor::ReadDecision() {
  if (decision_read_) return absl::OkStatus();
  after_.clear();
  RETURN_IF_ERROR(WaitForTransfer(recv_decision_));
  Stream& stream = *decision_stream_;
  const Operations& operations = options_.device->operations();
  const TensorView control = options_.model->control();
  const TensorView sent{slots_.decision().slot.buffer.data(), control.dtype, control.shape};
  for (const EventRef& event : after_) stream.Wait(event);
  // The last rank has decided itself.
  if (recv_decision_ >= 0) {
    operations.Copy(stream, sent, control);
  } else {
    operations.Copy(stream, control, sent);
  }
  stream.CopyToHost(control, &decision_);
  decision_read_ = stream.Record();
  return absl::OkStatus();
}

absl::StatusOr<EventRef> Executor::SendDecision(const Action& action) {
  RETURN_IF_ERROR(ReadDecision());
  return options_.transport->Send(ChannelOf(options_.layout, program_number_, action), &slots_.decision().slot,
                                  decision_read_);
}

// The one action whose outcome the issuing thread waits for: what it issues next depends on it.
absl::StatusOr<EventRef> Executor::PostValidate() {
  RETURN_IF_ERROR(ReadDecision());
  RETURN_IF_ERROR(WaitForEvent(decision_read_, ActionAt(place_)));
  if (decision_.skip == 0) ++updates_;
  if (decision_.skip == 0 && decision_.scale == 1) return decision_read_;
  revise_mark_ = options_.stream->Record();
  const EventRef revised = options_.model->Revise();
  if (program_->pass == PassKind::kTraining) GoOverToWrongGuess();
  return revised;
}

// The other program has the same list up to here; what it says from here on refers to none of the forward passes so
// far.
void Executor::GoOverToWrongGuess() {
  program_number_ = wrong_guess_;
  program_ = options_.layout.programs[program_number_];
  CHECK(program_->validation == Validation::kGuessWrong) << "the layout has no program for a wrong guess";
  list_ = &program_->ranks[options_.rank.index()];
  std::fill(cells_.begin(), cells_.end(), Cell{});
}

// The other end of a message that a rank began before it knew: what is sent has no content, what comes is not read.
EventRef Executor::Drain(const Action& action) {
  const bool forward = IsForwardTransfer(action.kind);
  const ChannelId channel = ChannelOf(options_.layout, program_number_, action);
  if (IsSend(action.kind)) {
    MessageSlot& slot = SlotOf(forward ? Pool::kOutput : Pool::kInputGradient, action, action.slot);
    slot.last_use = place_;
    // A discarded forward pass may still be writing it.
    return options_.transport->Send(channel, &slot.slot, computes_.empty() ? DoneEvent() : events_[computes_.back()]);
  }
  MessageSlot& slot = SlotOf(forward ? Pool::kInput : Pool::kOutputGradient, action, action.slot);
  const int32_t used_by = std::exchange(slot.last_use, place_);
  return options_.transport->Recv(channel, &slot.slot, used_by < 0 ? DoneEvent() : events_[used_by]);
}

}  // namespace sluice
