// One entry of a rank's list: what to do, for which stage and micro-batch, in which queue, with which slots.
// A plain value of 32 bytes. A generator fills kind, flags, copy, stage and micro_batch; lowering fills the rest.
#pragma once

#include <cstdint>
#include <ostream>
#include <string>

#include "base/ids.h"

namespace sluice {

enum class ActionKind : uint8_t {
  kForward,         // F
  kBackward,        // B: input and weight gradient at once
  kInputGradient,   // I
  kWeightGradient,  // W
  kSendForward,     // SEND_F: activation leaving `stage` for stage + 1 on rank `peer`
  kRecvForward,     // RECV_F: activation entering `stage` from stage - 1 on rank `peer`
  kSendBackward,    // SEND_B: gradient leaving `stage` for stage - 1 on rank `peer`
  kRecvBackward,    // RECV_B: gradient entering `stage` from stage + 1 on rank `peer`
  kUnshard,         // gathers a stage's sharded parameters
  kReshard,         // drops them again
  kReduceGradient,  // REDUCE_GRAD: brings a stage's gradients together with those of its other copies or replicas
  kCollective,      // entry `collective` of Program::collectives
  kOptimizerStep,   // updates all stages of the rank
  // Post-validation of the gradient norm (lowering.h); of the rank, of no stage.
  kNorm,            // NORM: adds the rank's squared norms to the vector that travels up, decides from what is in it
  kSendNorm,        // SEND_NORM: the vector, to the next rank
  kRecvNorm,        // RECV_NORM: the vector, from the rank before
  kSendValidation,  // SEND_POST_VALIDATION: what was decided from the whole vector, to the rank before
  kRecvValidation,  // RECV_POST_VALIDATION: ... from the next rank
  kPostValidation,  // POST_VALIDATION: the step before was right as it is, or is taken back and done as decided
};
inline constexpr int kActionKinds = static_cast<int>(ActionKind::kPostValidation) + 1;

enum ActionFlags : uint8_t {
  kNoFlags = 0,
  kOverlapsNext = 1,  // with the next compute action of the rank it forms one OVERLAP_F_B pair
  kDiscarded = 2,     // began before a guess was found wrong: its result is dropped, its message only taken in
};

struct Action {
  ActionKind kind = ActionKind::kForward;
  uint8_t flags = kNoFlags;
  int16_t copy = 0;  // which copy of the model (bidirectional schedules hold two)
  StageId stage;
  MicroBatch micro_batch;  // counted over all copies: copy c of C has cm/C ... (c+1)m/C - 1
  PipelineRank peer;       // other end of a transfer
  QueueId queue;           // index into Program::queues
  int32_t slot = -1;       // message slot bound: RECV the one it fills; F, I, B the one written; SEND the one sent
  int32_t stash = -1;      // STASH slot of F, GRADIENT_STASH slot of I and B
  int32_t collective =
      -1;  // entry of Program::collectives; REDUCE_GRAD: -1 where no other copy or replica has the stage

  friend bool operator==(const Action&, const Action&) = default;
};
static_assert(sizeof(Action) <= 40);

constexpr Action Forward(StageId stage, MicroBatch micro_batch, int copy = 0) {
  return {.kind = ActionKind::kForward, .copy = static_cast<int16_t>(copy), .stage = stage, .micro_batch = micro_batch};
}
constexpr Action Backward(StageId stage, MicroBatch micro_batch, int copy = 0) {
  return {
      .kind = ActionKind::kBackward, .copy = static_cast<int16_t>(copy), .stage = stage, .micro_batch = micro_batch};
}
constexpr Action InputGradient(StageId stage, MicroBatch micro_batch, int copy = 0) {
  return {.kind = ActionKind::kInputGradient,
          .copy = static_cast<int16_t>(copy),
          .stage = stage,
          .micro_batch = micro_batch};
}
constexpr Action WeightGradient(StageId stage, MicroBatch micro_batch, int copy = 0) {
  return {.kind = ActionKind::kWeightGradient,
          .copy = static_cast<int16_t>(copy),
          .stage = stage,
          .micro_batch = micro_batch};
}

// F, B, I, W: the work of one stage on one micro-batch, in the rank's compute queue.
constexpr bool IsCompute(ActionKind kind) { return kind <= ActionKind::kWeightGradient; }
// SEND_F, RECV_F, SEND_B, RECV_B: a message of one stage and micro-batch.
constexpr bool IsStageTransfer(ActionKind kind) {
  return kind >= ActionKind::kSendForward && kind <= ActionKind::kRecvBackward;
}
// Of stage transfers: SEND_F and RECV_F.
constexpr bool IsForwardTransfer(ActionKind kind) {
  return kind == ActionKind::kSendForward || kind == ActionKind::kRecvForward;
}
// The stage that a stage transfer's message leaves, the same for both of its ends; where activations go back to the
// first stage only ForwardPath knows.
constexpr StageId SourceStage(const Action& transfer) {
  switch (transfer.kind) {
    case ActionKind::kRecvForward:
      return StageId(transfer.stage.value() - 1);
    case ActionKind::kRecvBackward:
      return StageId(transfer.stage.value() + 1);
    default:
      return transfer.stage;
  }
}
constexpr bool IsSend(ActionKind kind) {
  return kind == ActionKind::kSendForward || kind == ActionKind::kSendBackward || kind == ActionKind::kSendNorm ||
         kind == ActionKind::kSendValidation;
}
constexpr bool IsRecv(ActionKind kind) {
  return kind == ActionKind::kRecvForward || kind == ActionKind::kRecvBackward || kind == ActionKind::kRecvNorm ||
         kind == ActionKind::kRecvValidation;
}
constexpr bool IsTransfer(ActionKind kind) { return IsSend(kind) || IsRecv(kind); }
// Starts and ends together with the same action of other ranks: COLLECTIVE, and REDUCE_GRAD where there are others.
constexpr bool IsCollective(const Action& action) { return action.collective >= 0; }

// The letters of PyTorch's pipelining CSV: "F", "B", "I", "W", "SEND_F", "UNSHARD", ...
const char* ActionKindName(ActionKind kind);

// The CSV's form of one action: "0F3", "1RECV_B2", "0REDUCE_GRAD". Beyond the CSV: "@1" after it for copy 1, and
// "COLLECTIVE2" and "OPTIMIZER_STEP", which belong to no stage; "~" at the end of what is discarded.
std::string ToString(const Action& action);
std::ostream& operator<<(std::ostream& out, const Action& action);

}  // namespace sluice
