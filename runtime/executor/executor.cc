#include "runtime/executor/executor.h"

#include <algorithm>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"

namespace sluice {
namespace {

size_t LongestList(const ExecutorOptions& options) {
  size_t longest = 0;
  for (const Program* program : options.layout.programs) {
    longest = std::max(longest, program->ranks[options.rank.index()].size());
  }
  return longest;
}

absl::Status CheckHoldsStagesOnce(const Placement& placement, PipelineRank rank) {
  for (int stage = 0; stage < placement.stages(); ++stage) {
    int held = 0;
    for (int copy = 0; copy < placement.copies(); ++copy) held += placement.RankOf(StageId(stage), copy) == rank;
    if (held <= 1) continue;
    return absl::InvalidArgumentError(absl::StrCat("rank ", rank.value(), " holds ", held, " copies of stage ", stage,
                                                   "; put them on ranks of their own"));
  }
  return absl::OkStatus();
}

}  // namespace

Executor::Executor(const ExecutorOptions& options)
    : options_(options), world_rank_(options.layout.WorldRankOf(options.rank)), recorder_(std::max<size_t>(256, 2 * LongestList(options))) {}

Executor::~Executor() = default;

absl::StatusOr<std::unique_ptr<Executor>> Executor::Create(const ExecutorOptions& options) {
  CHECK(!options.layout.programs.empty()) << "an executor needs a program";
  for (const Program* program : options.layout.programs) {
    CHECK(program->placement == options.layout.programs[0]->placement)
        << "programs of one executor share their placement";
  }
  RETURN_IF_ERROR(CheckHoldsStagesOnce(options.layout.programs[0]->placement, options.rank));
  auto executor = std::unique_ptr<Executor>(new Executor(options));
  RETURN_IF_ERROR(executor->Prepare());
  return executor;
}

absl::Status Executor::Prepare() {
  const Placement& placement = options_.layout.programs[0]->placement;
  int micro_batches = 0;
  for (int copy = 0; copy < placement.copies(); ++copy) {
    for (int stage = 0; stage < placement.stages(); ++stage) {
      const bool local = placement.RankOf(StageId(stage), copy) == options_.rank;
      local_stage_.push_back(local ? locals_++ : -1);
    }
  }
  for (const Program* program : options_.layout.programs) {
    micro_batches = std::max(micro_batches, program->micro_batches);
  }
  CHECK_EQ(options_.layout.messages.size(), static_cast<size_t>(placement.stages()));
  RETURN_IF_ERROR(PrepareTied());
  ASSIGN_OR_RETURN(slots_, MessageSlots::Create(options_.device, options_.layout, options_.rank));
  RETURN_IF_ERROR(PreparePostValidation());
  events_.resize(LongestList(options_));
  cells_.resize(static_cast<size_t>(locals_) * micro_batches);
  computes_.reserve(events_.size());
  after_.reserve(8);
  size_t exchanges = tied_.size() + 1;  // and the norm
  for (const auto& stage : options_.model->stages()) {
    exchanges += stage->reductions().size() + stage->gathers().size();
  }
  exchanged_.reserve(exchanges);
  exchanges_.reserve(events_.size());
  spans_.reserve(events_.size());
  for (const auto& stage : options_.model->stages()) {
    if (const TensorView losses = stage->losses()) losses_.resize(losses.elements());
  }
  return absl::OkStatus();
}

// A tensor all of whose uses are here is put together here; else the one use that is here is exchanged.
absl::Status Executor::PrepareTied() {
  for (const auto& stage : options_.model->stages()) {
    for (const TiedGradient& gradient : stage->tied()) tied_.push_back({.gradient = &gradient});
  }
  for (TiedUse& use : tied_) {
    const std::string& name = use.gradient->name;
    const auto here = std::count_if(tied_.begin(), tied_.end(), [&](const TiedUse& u) { return SamePiece(u, use); });
    use.exchanged = here < use.gradient->uses;
    const auto known = std::find_if(options_.layout.tied.begin(), options_.layout.tied.end(),
                                    [&](const TiedUses& tied) { return tied.name == name; });
    if (known != options_.layout.tied.end()) use.tensor = known->tensor;
    if (use.exchanged && (here != 1 || use.tensor < 0)) {
      return absl::InvalidArgumentError(absl::StrCat("rank ", options_.rank.value(), " holds ", here, " of the ",
                                                     use.gradient->uses, " uses of the tied tensor '", name, "'",
                                                     use.tensor < 0 ? ", which the layout doesn't name" : ""));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<const StepResult*> Executor::Run(size_t program, const StepInput& input) {
  CHECK_LT(program, options_.layout.programs.size());
  CHECK_EQ(input.micro_batches.size(), static_cast<size_t>(options_.layout.programs[program]->micro_batches));
  absl::Status status = options_.abort->cause();
  if (!status.ok()) return status;
  status = RunStep(program, input);
  if (!status.ok()) return Fail(status);
  options_.abort->SetIdle(world_rank_);
  return &result_;
}

absl::Status Executor::RunStep(size_t program, const StepInput& input) {
  BeginStep(program, input);
  for (place_ = 0; static_cast<size_t>(place_) < list_->size(); ++place_) {
    const Action& action = ActionAt(place_);
    recorder_.Reach(action, options_.world->Now());
    options_.abort->SetIssuing(world_rank_, action);
    try {
      RETURN_IF_ERROR(Issue(action));
    } catch (const std::bad_alloc&) {
      return Located(action, absl::ResourceExhaustedError("out of memory"));
    } catch (const std::exception& error) {
      return Located(action, absl::InternalError(error.what()));
    }
    recorder_.Issued(events_[place_], options_.world->Now());
  }
  return EndStep();
}

void Executor::BeginStep(size_t program, const StepInput& input) {
  program_number_ = program;
  program_ = options_.layout.programs[program];
  list_ = &program_->ranks[options_.rank.index()];
  input_ = &input;
  recorder_.BeginStep();
  slots_.BeginStep();
  std::fill(cells_.begin(), cells_.end(), Cell{});
  computes_.clear();
  begun_groups_.assign(begun_groups_.size(), false);
  spans_.clear();
  exchanged_.clear();
  exchanges_.clear();
  control_ = {};
  result_ = {};
  recv_norm_ = norm_ = recv_decision_ = -1;
  if (program_->pass == PassKind::kTraining && program_->validation == Validation::kNone) updates_ = input.update - 1;
}

absl::Status Executor::Issue(const Action& action) {
  EventRef& event = events_[place_];
  if (action.flags & kDiscarded) {
    event = Drain(action);
    return absl::OkStatus();
  }
  switch (action.kind) {
    case ActionKind::kForward:
    case ActionKind::kBackward:
    case ActionKind::kInputGradient:
    case ActionKind::kWeightGradient: {
      ASSIGN_OR_RETURN(event, Compute(action));
      computes_.push_back(place_);
      break;
    }
    case ActionKind::kSendForward:
    case ActionKind::kSendBackward:
      event = Send(action);
      break;
    case ActionKind::kRecvForward:
    case ActionKind::kRecvBackward:
      event = Recv(action);
      break;
    case ActionKind::kCollective:
      event = RunCollective(action);
      break;
    case ActionKind::kOptimizerStep:
      event = StepOptimizer();
      break;
    case ActionKind::kNorm: {
      ASSIGN_OR_RETURN(event, AddNorm());
      break;
    }
    case ActionKind::kRecvNorm:
      recv_norm_ = place_;
      event = options_.transport->Recv(ChannelOf(options_.layout, program_number_, action), &slots_.norms().slot,
                                       DoneEvent());
      break;
    case ActionKind::kSendNorm:
      event = options_.transport->Send(ChannelOf(options_.layout, program_number_, action), &slots_.norms().slot,
                                       events_[norm_]);
      break;
    case ActionKind::kRecvValidation:
      recv_decision_ = place_;
      event = options_.transport->Recv(ChannelOf(options_.layout, program_number_, action), &slots_.decision().slot,
                                       DoneEvent());
      break;
    case ActionKind::kSendValidation: {
      ASSIGN_OR_RETURN(event, SendDecision(action));
      break;
    }
    case ActionKind::kPostValidation: {
      ASSIGN_OR_RETURN(event, PostValidate());
      break;
    }
    case ActionKind::kUnshard:
    case ActionKind::kReshard:
      event = DoneEvent();
      break;  // no parameter is sharded
    case ActionKind::kReduceGradient:
      event = ReduceGradients(action);
      break;
  }
  return absl::OkStatus();
}

absl::StatusOr<EventRef> Executor::Compute(const Action& action) {
  const size_t ahead = static_cast<size_t>(std::max(1, options_.compute_ahead));
  if (computes_.size() >= ahead) {
    const int32_t place = computes_[computes_.size() - ahead];
    RETURN_IF_ERROR(WaitForEvent(events_[place], ActionAt(place)));
  }
  after_.clear();
  Stage* stage = options_.model->stage(action.stage);
  const MicroBatchInfo info = InfoFor(action);
  Cell& cell = CellOf(action.stage, action);
  switch (action.kind) {
    case ActionKind::kForward: {
      ASSIGN_OR_RETURN(const StageSlots slots, BindForward(action, cell));
      return stage->Forward(info, slots, after_);
    }
    case ActionKind::kBackward: {
      ASSIGN_OR_RETURN(const StageSlots slots, BindBackward(action, cell));
      return stage->Backward(info, slots, after_);
    }
    case ActionKind::kInputGradient: {
      ASSIGN_OR_RETURN(const StageSlots slots, BindBackward(action, cell));
      return stage->InputGradient(info, slots, after_);
    }
    default:
      return stage->WeightGradient(info, BindHeld(action, cell), after_);
  }
}

// The list's order says whose weight gradient is the first of its group. A head's are made by I, the others by W: where
// B and the two halves take turns, either may be the first.
MicroBatchInfo Executor::InfoFor(const Action& action) {
  MicroBatchInfo info = input_->micro_batches[action.micro_batch.index()];
  info.index = action.micro_batch;
  if (action.kind == ActionKind::kForward) return info;
  const size_t group =
      2 * (info.gradient_group * locals_ + local_stage_[program_->placement.Index(action.stage, action.copy)]);
  if (action.kind != ActionKind::kInputGradient) info.accumulate = BeginGroup(group);
  if (action.kind != ActionKind::kWeightGradient) info.head_accumulate = BeginGroup(group + 1);
  return info;
}

Accumulate Executor::BeginGroup(size_t group) {
  if (group >= begun_groups_.size()) begun_groups_.resize(group + 1);
  const bool begun = begun_groups_[group];
  begun_groups_[group] = true;
  return begun ? Accumulate::kAdd : Accumulate::kOverwrite;
}

absl::StatusOr<StageSlots> Executor::BindForward(const Action& action, Cell& cell) {
  cell.forward = place_;
  cell.stash = action.stash;
  RETURN_IF_ERROR(WaitForTransfer(cell.input_made_by));
  const ForwardPath path = program_->path();
  StageSlots slots;
  if (path.Previous(action.stage, action.micro_batch)) {
    MessageSlot& input = SlotOf(Pool::kInput, action, cell.input);
    slots.input = &input.slot;
    input.last_use = place_;
  }
  if (const auto next = path.Next(action.stage, action.micro_batch)) {
    ASSIGN_OR_RETURN(slots.output, BindTarget(action, next->stage, Pool::kInput, Pool::kOutput));
    if (IsLocal(next->stage, action.copy)) {
      Cell& neighbour = CellOf(*next, action.copy);
      neighbour.input = action.slot;
      neighbour.input_made_by = place_;
    }
  }
  slots.stash = cell.stash;
  return slots;
}

absl::StatusOr<StageSlots> Executor::BindBackward(const Action& action, Cell& cell) {
  cell.backward = place_;
  cell.gradient_stash = action.stash;
  RETURN_IF_ERROR(WaitForTransfer(cell.output_gradient_made_by));
  StageSlots slots = BindHeld(action, cell);
  if (action.stage.value() > 0) {
    const StageId previous(action.stage.value() - 1);
    ASSIGN_OR_RETURN(slots.input_gradient, BindTarget(action, previous, Pool::kOutputGradient, Pool::kInputGradient));
    if (IsLocal(previous, action.copy)) {
      Cell& neighbour = CellOf(previous, action);
      neighbour.output_gradient = action.slot;
      neighbour.output_gradient_made_by = place_;
    }
  }
  return slots;
}

// The slot that a compute action writes: its neighbour's own if that stands on the same rank, else one to send.
absl::StatusOr<Slot*> Executor::BindTarget(const Action& action, StageId neighbour, Pool neighbours, Pool own) {
  MessageSlot& target = IsLocal(neighbour, action.copy) ? slots_.At(neighbours, neighbour, action.copy, action.slot)
                                                        : SlotOf(own, action, action.slot);
  RETURN_IF_ERROR(WaitForTransfer(target.last_use));
  return &target.slot;
}

// What I, W and B read: held since F and since the gradient came.
StageSlots Executor::BindHeld(const Action& action, const Cell& cell) {
  StageSlots slots{.stash = cell.stash, .gradient_stash = cell.gradient_stash};
  if (action.stage.value() > 0) {
    MessageSlot& input = SlotOf(Pool::kInput, action, cell.input);
    slots.input = &input.slot;
    input.last_use = place_;
  }
  if (!IsLastStage(action.stage)) {
    MessageSlot& gradient = SlotOf(Pool::kOutputGradient, action, cell.output_gradient);
    slots.output_gradient = &gradient.slot;
    gradient.last_use = place_;
  }
  return slots;
}

EventRef Executor::Send(const Action& action) {
  const bool forward = action.kind == ActionKind::kSendForward;
  const Cell& cell = CellOf(action.stage, action);
  MessageSlot& slot = SlotOf(forward ? Pool::kOutput : Pool::kInputGradient, action, action.slot);
  slot.last_use = place_;
  return options_.transport->Send(ChannelOf(options_.layout, program_number_, action), &slot.slot,
                                  events_[forward ? cell.forward : cell.backward]);
}

EventRef Executor::Recv(const Action& action) {
  const bool forward = action.kind == ActionKind::kRecvForward;
  Cell& cell = CellOf(action.stage, action);
  (forward ? cell.input : cell.output_gradient) = action.slot;
  (forward ? cell.input_made_by : cell.output_gradient_made_by) = place_;
  MessageSlot& slot = SlotOf(forward ? Pool::kInput : Pool::kOutputGradient, action, action.slot);
  const int32_t used_by = std::exchange(slot.last_use, place_);
  return options_.transport->Recv(ChannelOf(options_.layout, program_number_, action), &slot.slot,
                                  used_by < 0 ? DoneEvent() : events_[used_by]);
}

// One exchange behind the other in the queue: the last one ends the action. The first ones begin while the stage's last
// weight gradient is still at work on layers before: waiting for less than was proven can't stop what runs with more.
EventRef Executor::ReduceGradients(const Action& action) {
  if (!IsCollective(action)) return DoneEvent();
  const GroupId group = GroupOf(options_.layout, program_number_, action.collective);
  for (const GradientReduction& reduction : options_.model->stage(action.stage)->reductions()) {
    const int64_t bytes = reduction.all.bytes(), members = static_cast<int64_t>(reduction.parts.size());
    const EventRef after = reduction.ready ? reduction.ready : GradientsThere();
    KeepExchange(options_.transport->AllToAll(group, reduction.mine, reduction.parts, reduction.all, after),
                 bytes - bytes / members);
  }
  return exchanged_.back();
}

void Executor::KeepExchange(EventRef event, int64_t bytes) {
  if (exchanges_.empty() || exchanges_.back().place != place_) exchanges_.push_back({place_, event});
  exchanges_.back().bytes += bytes;
  exchanged_.push_back(std::move(event));
}

EventRef Executor::RunCollective(const Action& action) {
  const Collective& collective = program_->collectives[action.collective];
  const GroupId group = GroupOf(options_.layout, program_number_, action.collective);
  switch (collective.kind) {
    case CollectiveKind::kTiedGradients:
      return ExchangeTied(collective, group);
    case CollectiveKind::kNorm:
      return GatherNorm(group);
    default:
      return GatherSlices(collective, group);
  }
}

// Piece by piece; a member whose slice has nothing of the tensor has nothing to exchange, as its partners in the other
// stages.
EventRef Executor::ExchangeTied(const Collective& collective, GroupId group) {
  EventRef last = GradientsThere();
  for (const TiedUse& use : tied_) {
    if (use.tensor != collective.tensor || use.gradient->copy != collective.copy) continue;
    CHECK(use.exchanged) << "rank " << options_.rank << " doesn't exchange tied tensor " << collective.tensor;
    last = options_.transport->AllGather(group, use.gradient->mine, {}, use.gradient->all,
                                         exchanged_.empty() ? GradientsThere() : exchanged_.back());
    KeepExchange(last, use.gradient->all.bytes() - use.gradient->mine.bytes());
  }
  return last;
}

EventRef Executor::GatherNorm(GroupId group) {
  for (const EventRef& event : exchanged_) options_.stream->Wait(event);
  PutTiedTogether();
  finished_ = options_.model->FinishGradients({});
  const TensorView mine = options_.model->norm_mine(), all = options_.model->norm_all();
  KeepExchange(options_.transport->AllGather(group, mine, options_.model->norm_parts(), all, finished_),
               all.bytes() - mine.bytes());
  return exchanged_.back();
}

EventRef Executor::GatherSlices(const Collective& collective, GroupId group) {
  const bool parameters = collective.kind == CollectiveKind::kParameters;
  Stage* stage = options_.model->stage(collective.stage);
  const size_t first = exchanged_.size();
  const EventRef after = parameters ? stepped_ : finished_;
  for (const SliceGather& gather : stage->gathers()) {
    KeepExchange(options_.transport->AllGather(group, gather.mine, gather.parts, gather.all, after),
                 gather.all.bytes() - gather.mine.bytes());
  }
  if (parameters) stage->FinishParameters(absl::MakeConstSpan(exchanged_).subspan(first));
  return exchanged_.back();
}

// Partials of uses that are all on this rank: each goes to its place in every holder's `all`.
void Executor::PutTiedTogether() {
  for (const TiedUse& target : tied_) {
    for (const TiedUse& source : tied_) {
      if (target.exchanged || !SamePiece(source, target)) continue;
      const TensorView& mine = source.gradient->mine;
      const TensorView place{target.gradient->all.data + source.gradient->use * mine.bytes(), mine.dtype, mine.shape};
      if (place.data != mine.data) options_.device->operations().Copy(*options_.stream, mine, place);
    }
  }
}

EventRef Executor::StepOptimizer() {
  if (input_->state_read) options_.stream->Wait(input_->state_read);
  optimizer_mark_ = options_.stream->Record();
  if (norm_ >= 0) return options_.model->GuessStep(input_->learning_rate, updates_ + 1);
  last_before_step_ = exchanged_.back();
  stepped_ = options_.model->OptimizerStep(input_->learning_rate, input_->update, exchanged_);
  return stepped_;
}

// Of a stage in the action's copy of the model and its micro-batch.
Executor::Cell& Executor::CellOf(StageId stage, const Action& action) {
  return CellOf({stage, action.micro_batch}, action.copy);
}
Executor::Cell& Executor::CellOf(const StageItem& item, int copy) {
  const int local = local_stage_[program_->placement.Index(item.stage, copy)];
  return cells_[static_cast<size_t>(local) * program_->micro_batches + item.micro_batch.index()];
}

bool Executor::IsLocal(StageId stage, int copy) const {
  return local_stage_[program_->placement.Index(stage, copy)] >= 0;
}

}  // namespace sluice
