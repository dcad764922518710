// A Stage is a run of consecutive layers on one device: what the executor calls for the compute actions of a schedule.
//
// Every call only issues work on the rank's compute stream and returns an event: done when the action has ended, with
// the device's times of its begin and end. `after` lists what must be done before the action starts. Threads: used by
// its rank's issuing thread. Errors arrive through the events.
//
// Memory is in slots, numbered by the lowered schedule: message slots (Slot) hold the activation entering or leaving
// the stage and its gradient; a stash slot holds what Forward keeps for the backward pass of one micro-batch, a
// gradient stash slot what InputGradient keeps for WeightGradient.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "base/event.h"
#include "base/ids.h"
#include "kernels/operations.h"
#include "kernels/tensor.h"
#include "kernels/transport.h"

namespace sluice {

// Facts about one micro-batch, on the host; in training each rank derives them from the data. B rows of T tokens, both
// at most what the stage was planned for. The arrays stay as they are until the step has ended.
struct MicroBatchInfo {
  MicroBatch index;
  int64_t rows = 0;                     // B
  int64_t sequence = 0;                 // T
  absl::Span<const int32_t> tokens;     // [B*T]
  absl::Span<const int32_t> targets;    // [B*T]; negative: ignored; empty where logits are wanted
  absl::Span<const int32_t> positions;  // [B*T]
  absl::Span<const int32_t> first_key;  // [B*T] first position a token may attend to; empty: 0
  absl::Span<const int32_t> samples;    // [B] global sample indices
  int64_t step = 0;                     // keys the random numbers
  float loss_scale = 0;                 // 1 / valid targets of the step, over all micro-batches and replicas
  int gradient_group = 0;               // which partial sum this micro-batch's weight gradients go to
  // Of weight gradients; whoever issues the actions sets them. kOverwrite: the stage's first of this gradient group.
  Accumulate accumulate = Accumulate::kAdd;       // by W and B
  Accumulate head_accumulate = Accumulate::kAdd;  // by I and B, in which the head makes its own
  bool training = true;                           // false: no dropout, nothing is kept
  // Without training: at most B of the B*T tokens, whose logits are wanted in place of the loss.
  absl::Span<const int32_t> logits_of;
  // In generation, of a stage that keeps keys and values: each token is a row of its own (T = 1), those of one sequence
  // stand together. Tokens that come from the last stage are in the input slot and not here.
  absl::Span<const int32_t> sequences;  // [B] which of the kept ones each token belongs to; empty: no generation
  // After each token of logits_of one is drawn: for which sequence, and which place it will have there.
  absl::Span<const int32_t> drawn_sequences;
  absl::Span<const int32_t> drawn_positions;
};

// The slots of one action; those it doesn't use are null or -1.
struct StageSlots {
  Slot* input = nullptr;            // activation entering; null for the first stage, unless tokens come to it
  Slot* output = nullptr;           // activation leaving; null for the last stage, unless what it draws goes back
  Slot* output_gradient = nullptr;  // gradient of `output`; null for the last stage
  Slot* input_gradient = nullptr;   // gradient of `input`; null for the first stage
  int stash = -1;
  int gradient_stash = -1;
};

// A tensor that several stages hold (tied weights): their gradients are exchanged before the optimizer's step.
struct TiedGradient {
  std::string name;  // global name
  int piece = 0;     // where the gradient comes in several pieces, the same in every holder of a copy of the model
  int copy = 0;      // of the model
  int use = 0;       // which of its uses, in layer order, this stage computes
  int uses = 1;
  TensorView mine;  // [G, n] f32: this use's partial of each gradient group, in its place in ...
  TensorView all;   // ... [uses, G, n] f32: where the partials of all uses are gathered, in order
};

// A stage may have several holders, the members: copies of the model in one pipeline, and replicas of pipelines. Each
// works on its own gradient groups, sums its own slice of the gradients, and makes that slice's norm partials. An
// all-to-all between them before anything is summed: each gives every other its slice of the partials it has made.
struct GradientReduction {
  TensorView mine;                  // f32: partials of one gradient group of this member, slice by slice
  absl::Span<const int64_t> parts;  // bytes of each member's slice
  TensorView all;                   // f32: this member's slice of the partials of each member
  // `mine` is there, as of the last W or B that was issued; null: when that has ended.
  EventRef ready;
};
// An all-gather of the members' slices.
struct SliceGather {
  TensorView mine;                  // f32, its place in ...
  absl::Span<const int64_t> parts;  // bytes of each member's slice
  TensorView all;                   // ... all slices, in order
};

struct OptimizerStepArgs {
  TensorView control;  // StepControl, decided from the gathered norm
  float learning_rate = 0;
  int64_t update = 1;  // counts optimizer updates from 1
};

class Stage {
 public:
  virtual ~Stage() = default;
  virtual StageId id() const = 0;

  virtual EventRef Forward(const MicroBatchInfo& info, const StageSlots& slots, absl::Span<const EventRef> after) = 0;
  // I: gradient of the stage's input, and that of the head's weight. W: adds to the gradients of the other parameters.
  // Backward: both, the same bits.
  virtual EventRef InputGradient(const MicroBatchInfo& info, const StageSlots& slots,
                                 absl::Span<const EventRef> after) = 0;
  virtual EventRef WeightGradient(const MicroBatchInfo& info, const StageSlots& slots,
                                  absl::Span<const EventRef> after) = 0;
  virtual EventRef Backward(const MicroBatchInfo& info, const StageSlots& slots, absl::Span<const EventRef> after) = 0;

  // What REDUCE_GRAD exchanges, and what is gathered: summed gradients before OptimizerStep or, with ZeRO-1, parameters
  // after it. The same lists in every member; empty where there is one.
  virtual absl::Span<const GradientReduction> reductions() const = 0;
  virtual absl::Span<const SliceGather> gathers() const = 0;
  // Tied tensors whose partials are to be gathered (over the ranks that hold a use) before FinishGradients.
  virtual absl::Span<const TiedGradient> tied() const = 0;
  // Number of squared-norm partials (blocks of kNormBlock elements) of the tensors this stage answers for: its own, and
  // those tied tensors whose first use is here; this member's slices of them. In global order of tensors and blocks.
  virtual int64_t norm_partials() const = 0;
  // Sums the gradients over uses, then groups, in order; writes the squared-norm partials.
  virtual EventRef FinishGradients(TensorView partials, absl::Span<const EventRef> after) = 0;
  // Updates all parameters, or with ZeRO-1 this member's slices of them; FinishParameters, once they have been
  // gathered, then makes of them what the device computes with.
  virtual EventRef OptimizerStep(const OptimizerStepArgs& args, absl::Span<const EventRef> after) = 0;
  virtual EventRef FinishParameters(absl::Span<const EventRef> after) = 0;
  // Copies aside what the next OptimizerStep will overwrite; RollBack brings it back. Only issued. REQUIRES: the stage
  // was planned for it.
  virtual void KeepState() = 0;
  virtual void RollBack() = 0;

  // For the stage that ends in the loss: the sum of the losses of each micro-batch's valid targets of the current step,
  // [m] f32 on the device, once its I or B has run, or, without training, its F; absent elsewhere.
  virtual TensorView losses() const = 0;
  // For the stage that ends in the loss: what the last Forward was to make for MicroBatchInfo::logits_of, [tokens, V]
  // f32; absent elsewhere, and if that was nothing.
  virtual TensorView logits() const = 0;
  // For the stage that ends in the loss, of generation: the tokens drawn after each micro-batch, [m, sequences of a
  // group] i32; absent elsewhere.
  virtual TensorView drawn() const = 0;
};

}  // namespace sluice
