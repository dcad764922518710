// The executor of one rank: it walks the rank's list of a lowered program in issue order and calls Stage and Transport.
// Nothing else: what to do in which order is in the program, how is in the stage, where to is in the transport.
//
// How it waits (scheduler/program.h): a SEND or RECV is issued at once. Where slots move with their messages, a compute
// action is issued only when the RECV of its input has ended, and the last SEND out of the slot it will write;
// elsewhere the device waits for these. Every wait has a deadline and ends when any rank of the job fails.
//
// Threads: created, used and destroyed by the rank's issuing thread. The flight recorder may be dumped by any.
// Ownership: everything in the options outlives the executor. Slots travel between ranks, so all executors of a process
// die before the device of any. After the first step of a program a step allocates no memory.
// Errors: the first failure of any rank ends all of them, for ever, and is what every Run() returns.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/world.h"
#include "kernels/device.h"
#include "kernels/transport.h"
#include "runtime/executor/flight_recorder.h"
#include "runtime/executor/links.h"
#include "runtime/executor/message_slots.h"
#include "runtime/executor/pipeline_abort.h"
#include "scheduler/program.h"
#include "scheduler/timeline.h"
#include "stages/rank_model.h"

namespace sluice {

// A wait ends in DEADLINE_EXCEEDED when nothing in the job has moved for the larger of `limit` and `multiple` times
// what the step was predicted to take. Slow is not dead: messages count piece by piece, as far as the transport tells.
struct Watchdog {
  Nanoseconds limit = 60 * kSecond;
  double multiple = 10;
  Nanoseconds predicted_step = 0;
  // A number that changes when something moves in the job's other processes. Null: all of it is here.
  std::function<uint64_t()> moves_elsewhere;
  // How long a failed rank waits for its device to come to rest before it returns.
  Nanoseconds rest = 5 * kSecond;
};

struct ExecutorOptions {
  World* world = nullptr;
  Device* device = nullptr;
  Stream* stream = nullptr;  // the one that the stages compute on
  Transport* transport = nullptr;
  RankModel* model = nullptr;
  PipelineAbort* abort = nullptr;
  PipelineRank rank;
  PipelineLayout layout;
  Watchdog watchdog;
  int compute_ahead = 4;  // compute actions issued and not ended, at most
};

// What one pass through a program works on.
struct StepInput {
  // Indexed by MicroBatch; as many as the program has. What they point to stays until Run() has returned.
  absl::Span<const MicroBatchInfo> micro_batches;
  float learning_rate = 0;
  // Counts optimizer updates from 1. A step that validates the one before counts on from that instead.
  int64_t update = 1;
  // OPTIMIZER_STEP begins after it: whoever reads parameters and moments while the step runs has done so. Null: at once.
  EventRef state_read;
  // Where the logits of the last Forward (MicroBatchInfo::logits_of) go on the rank that has them; empty: not wanted.
  absl::Span<std::byte> logits;
  // Where what was drawn goes (Stage::drawn) on the rank that has it; empty: not wanted.
  absl::Span<int32_t> drawn;
};

// Valid until the next Run().
struct StepResult {
  absl::Span<const float> losses;  // of each micro-batch (Stage::losses), on the rank that ends in the loss; else empty
  // The optimizer's decision; as built for forward-only programs. With post-validation a rank knows those up to itself:
  // the last one's is the decision.
  StepControl control;
  absl::Span<const Span> spans;  // one an action, begin and end in the World's time
};

class Executor {
 public:
  // Allocates the message slots. Errors: INVALID_ARGUMENT when layout and model don't fit each other,
  // RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<Executor>> Create(const ExecutorOptions& options);
  ~Executor();

  // Runs one step of program number `program` of the layout, and returns when all of this rank's actions have ended. If
  // it validates the step before and that was guessed wrong, it goes over to the layout's program for that.
  absl::StatusOr<const StepResult*> Run(size_t program, const StepInput& input);

  // What this rank did last, for people.
  std::string DumpFlightRecorder() const { return recorder_.Dump(); }

 private:
  // Where the things of one (stage, micro-batch) are: slots, and the places in the list of the actions that made them.
  struct Cell {
    int32_t input = -1;
    int32_t output_gradient = -1;
    int32_t stash = -1;
    int32_t gradient_stash = -1;
    int32_t input_made_by = -1;            // RECV_F or the F whose activation it is, on the same rank
    int32_t output_gradient_made_by = -1;  // RECV_B or the next stage's I or B
    int32_t forward = -1;
    int32_t backward = -1;  // I or B
  };
  // A gradient of a tied tensor that this rank holds.
  struct TiedUse {
    const TiedGradient* gradient = nullptr;
    int tensor = -1;
    bool exchanged = false;  // with other ranks; else put together here
  };

  // Parts of the same piece of the same gradient.
  static bool SamePiece(const TiedUse& a, const TiedUse& b) {
    return a.gradient->name == b.gradient->name && a.gradient->piece == b.gradient->piece &&
           a.gradient->copy == b.gradient->copy;
  }

  explicit Executor(const ExecutorOptions& options);
  absl::Status Prepare();
  absl::Status PrepareTied();

  absl::Status RunStep(size_t program, const StepInput& input);
  void BeginStep(size_t program, const StepInput& input);
  absl::Status Issue(const Action& action);
  absl::StatusOr<EventRef> Compute(const Action& action);
  MicroBatchInfo InfoFor(const Action& action);
  Accumulate BeginGroup(size_t group);
  absl::StatusOr<StageSlots> BindForward(const Action& action, Cell& cell);
  absl::StatusOr<StageSlots> BindBackward(const Action& action, Cell& cell);
  absl::StatusOr<Slot*> BindTarget(const Action& action, StageId neighbour, Pool neighbours, Pool own);
  Cell& CellOf(const StageItem& item, int copy);
  MessageSlot& SlotOf(Pool pool, const Action& action, int32_t slot) {
    return slots_.At(pool, action.stage, action.copy, slot);
  }
  StageSlots BindHeld(const Action& action, const Cell& cell);
  EventRef Send(const Action& action);
  EventRef Recv(const Action& action);
  EventRef ReduceGradients(const Action& action);
  EventRef RunCollective(const Action& action);
  // All weight gradients issued so far have been added.
  EventRef GradientsThere() const { return computes_.empty() ? DoneEvent() : events_[computes_.back()]; }
  EventRef ExchangeTied(const Collective& collective, GroupId group);
  EventRef GatherNorm(GroupId group);
  // What the members of a stage gather before the optimizer's step or after it.
  EventRef GatherSlices(const Collective& collective, GroupId group);
  void KeepExchange(EventRef event, int64_t bytes);
  EventRef StepOptimizer();
  // Post-validation (post_validation.cc).
  absl::Status PreparePostValidation();
  absl::StatusOr<EventRef> AddNorm();
  absl::StatusOr<EventRef> SendDecision(const Action& action);
  absl::Status ReadDecision();
  absl::StatusOr<EventRef> PostValidate();
  void GoOverToWrongGuess();
  EventRef Drain(const Action& action);
  void PutTiedTogether();
  absl::Status EndStep();
  bool HasRun(StageId stage) const;
  void TakeSpans();

  // Before the action at hand starts, the transfer at `place` must have ended: waits for it, or lets the device wait.
  absl::Status WaitForTransfer(int32_t place);
  uint64_t Moves() const;  // changes when anything moves, here or in other processes
  std::optional<size_t> WaitWhileItMoves(absl::Span<const EventRef> events) const;
  absl::Status WaitForEvent(const EventRef& event, const Action& awaited);
  absl::Status Fail(const absl::Status& status);
  void ComeToRest();
  absl::Status Located(const Action& action, const absl::Status& status) const;

  Cell& CellOf(StageId stage, const Action& action);
  bool IsLocal(StageId stage, int copy) const;
  bool IsLastStage(StageId stage) const { return stage.value() + 1 == program_->placement.stages(); }
  const Action& ActionAt(int32_t place) const { return (*list_)[place]; }

  const ExecutorOptions options_;
  const WorldRank world_rank_;
  MessageSlots slots_;
  FlightRecorder recorder_;
  std::vector<TiedUse> tied_;
  int locals_ = 0;                // stages of this rank
  std::vector<int> local_stage_;  // per Placement::Index: the stage's number among those of this rank, or -1

  // Of the step that runs.
  size_t program_number_ = 0;
  const Program* program_ = nullptr;
  const std::vector<Action>* list_ = nullptr;
  const StepInput* input_ = nullptr;
  int32_t place_ = 0;                // of the action at hand in the list
  std::vector<EventRef> events_;     // per place
  std::vector<Cell> cells_;          // [local stage][micro-batch]
  std::vector<int32_t> computes_;    // places of compute actions issued so far
  // [gradient group][local stage][0: by B or W, 1: by B or I]: some weight gradient has been issued.
  std::vector<bool> begun_groups_;
  std::vector<EventRef> after_;      // of the action at hand
  std::vector<EventRef> exchanged_;  // gradients with other ranks, all so far; after OPTIMIZER_STEP, parameters
  // Of each action that consists of several exchanges, by its place: the first one, and bytes that this rank takes in.
  struct Exchanges {
    int32_t place = 0;
    EventRef first;
    int64_t bytes = 0;
  };
  std::vector<Exchanges> exchanges_;
  EventRef finished_;          // all gradients of this rank are summed,
  EventRef last_before_step_;  // the last exchange before OPTIMIZER_STEP has ended,
  EventRef stepped_;           // and so has that
  EventRef optimizer_mark_;
  EventRef norm_mark_;                                       // before what NORM issues ...
  EventRef revise_mark_;                                     // ... and what POST_VALIDATION does after a wrong guess
  EventRef decision_read_;                                   // the decision about the step before is in `decision_`
  int32_t recv_norm_ = -1, norm_ = -1, recv_decision_ = -1;  // places

  // Of the step before.
  StepControl decision_;
  int64_t updates_ = 0;                      // validated ones
  std::unique_ptr<Stream> decision_stream_;  // reads decisions while the compute stream works; null: none are sent
  size_t wrong_guess_ = 0;                   // the program's number

  // Its result.
  std::vector<float> losses_;
  StepControl control_;
  std::vector<Span> spans_;
  StepResult result_;
};

}  // namespace sluice
