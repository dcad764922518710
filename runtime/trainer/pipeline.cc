#include "runtime/trainer/pipeline.h"

#include <algorithm>
#include <array>
#include <map>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "runtime/trainer/rank.h"
#include "scheduler/memory_samples.h"

namespace sluice {
namespace {

// The last three where steps are post-validated.
enum ProgramNumber : size_t { kTraining, kEvaluation, kOneForward, kFirstStep, kGuessWrong, kSettling };

// The first failure is every rank's; what comes back is its cause.
absl::Status FinishAll(const std::vector<std::unique_ptr<Rank>>& ranks) {
  absl::Status first;
  for (const auto& rank : ranks) {
    absl::Status status = rank->Finish();
    if (first.ok()) first = std::move(status);
  }
  return first;
}

}  // namespace

struct Pipeline::State {
  PipelineShared shared;
  std::vector<std::unique_ptr<Rank>> ranks;
  bool open = false;  // the last step was guessed, and nobody has validated it
  size_t started = 0, finished = 0;            // steps
  std::array<Nanoseconds, 2> step_began = {};  // of the last two started
  std::mutex mutex;  // of what several ranks write at once

  // Runs one piece of work on all ranks.
  absl::Status OnAll(const Rank::Work& work) {
    for (const auto& rank : ranks) rank->Start(work);
    return Finish();
  }
  absl::Status Finish() {
    absl::Status status = FinishAll(ranks);
    const absl::Status cause = shared.abort->cause();
    return cause.ok() ? status : cause;
  }
  // A step that was started while the one before ran begins with its first work.
  Nanoseconds BeganAt(size_t place) const {
    if (!post_validates()) return step_began[place];
    Nanoseconds began = kForever;
    for (const auto& rank : ranks) {
      for (const Span& span : rank->results[place].spans) began = std::min(began, span.begin_ns);
    }
    return began;
  }
  bool post_validates() const { return shared.plan->post_validation.has_value(); }
  const RankGrid& grid() const { return shared.layout.grid; }
  Rank& RankAt(const GridPlace& place) const { return *ranks[grid().RankOf(place).index()]; }
  // Each from the rank that holds the last stage of the copy and replica that worked on it.
  std::vector<float> Losses(ProgramNumber number, size_t place) const {
    const Program& program = shared.programs[number];
    const Placement& placement = program.placement;
    const StageId last(placement.stages() - 1);
    std::vector<float> losses;
    for (int replica = 0; replica < grid().dp(); ++replica) {
      for (int i = 0; i < program.micro_batches; ++i) {
        const int copy = CopyOf(MicroBatch(i), program.micro_batches, placement.copies());
        const Rank& rank = RankAt({placement.RankOf(last, copy), replica, 0});
        losses.push_back(rank.results[place].losses[i]);
      }
    }
    return losses;
  }
  // Adds what one pipeline of the grid did to the timeline of all.
  void AddPipeline(const std::vector<Rank*>& pipeline, size_t place, Nanoseconds began, Timeline* timeline) const {
    std::vector<Span> spans;
    for (const Rank* rank : pipeline) {
      for (Span span : rank->results[place].spans) {
        span.begin_ns -= began;
        span.end_ns -= began;
        spans.push_back(span);
      }
    }
    const auto row = [&](PipelineRank rank) { return PipelineRank(pipeline[rank.index()]->rank().value()); };
    for (MemorySample sample : MemorySamples(shared.programs[kTraining], shared.plan->stage_bytes, spans)) {
      sample.rank = row(sample.rank);
      timeline->samples.push_back(sample);
    }
    for (Span& span : spans) {
      span.rank = row(span.rank);
      timeline->spans.push_back(span);
    }
  }
};

absl::StatusOr<std::unique_ptr<Pipeline>> Pipeline::Create(World* world, const Plan& plan,
                                                           const PipelineOptions& options) {
  auto pipeline = std::unique_ptr<Pipeline>(new Pipeline());
  pipeline->state_ = std::make_unique<State>();
  PipelineShared& shared = pipeline->state_->shared;
  shared.world = world;
  shared.plan = &plan;
  shared.options = options;
  shared.programs = {plan.training, plan.evaluation, plan.generation};
  if (plan.post_validation.has_value()) {
    const PostValidationPrograms& others = *plan.post_validation;
    for (const Program* program : {&others.first_step, &others.guess_wrong, &others.settle}) {
      shared.programs.push_back(*program);
    }
  }
  for (const Program& program : shared.programs) shared.layout.programs.push_back(&program);
  shared.layout.messages = MessagesOf(plan);
  shared.layout.tied = TiedUsesOf(plan);
  shared.layout.norm_bytes = NormBytesOf(plan);
  shared.layout.grid = plan.job.layout.grid();
  const int ranks = shared.layout.grid.ranks();
  shared.abort = std::make_unique<PipelineAbort>(world, shared.layout.grid);
  shared.hub = std::make_unique<InProcessHub>(world, ranks);
  for (int rank = 0; rank < ranks; ++rank) shared.ranks.push_back(WorldRank(rank));
  for (const WorldRank rank : shared.ranks) {
    pipeline->state_->ranks.push_back(std::make_unique<Rank>(&shared, rank));
  }
  RETURN_IF_ERROR(pipeline->state_->OnAll([](Rank&) { return absl::OkStatus(); }));
  return pipeline;
}

Pipeline::~Pipeline() {
  for (const auto& rank : state_->ranks) rank->Close();
}

void Pipeline::StartStep(const TrainingStep& step) {
  const bool ahead = state_->post_validates();
  CHECK_LT(steps_running(), ahead ? 2u : 1u) << "too many steps at once";
  const size_t program = ahead && !state_->open ? kFirstStep : kTraining, place = state_->started++ % 2;
  state_->open = ahead;
  state_->step_began[place] = state_->shared.world->Now();
  for (const auto& rank : state_->ranks) {
    rank->Start([step, program, place](Rank& self) -> absl::Status {
      ASSIGN_OR_RETURN(const StepResult* result, self.executor().Run(program, {.micro_batches = self.ShareOf(step.micro_batches),
                                                                               .learning_rate = step.learning_rate,
                                                                               .update = step.update}));
      self.Keep(*result, place);
      return absl::OkStatus();
    });
  }
}

size_t Pipeline::steps_running() const { return state_->started - state_->finished; }

absl::StatusOr<TrainingOutcome> Pipeline::FinishStep() {
  CHECK_GT(steps_running(), 0u) << "no step has been started";
  const size_t place = state_->finished++ % 2;
  RETURN_IF_ERROR(state_->Finish());
  const Program& program = state_->shared.programs[kTraining];
  TrainingOutcome outcome;
  outcome.loss_sums = state_->Losses(kTraining, place);
  outcome.control = state_->ranks.back()->results[place].control;  // of all ranks' norms, whatever the end of a step
  outcome.began = state_->BeganAt(place);
  Timeline& timeline = outcome.timeline;
  timeline.name = program.name;
  timeline.source = TimelineSource::kMeasured;
  timeline.ranks = state_->grid().ranks();
  timeline.stages = program.placement.stages();
  timeline.micro_batches = program.micro_batches;
  timeline.queues = program.queues;
  for (int replica = 0; replica < state_->grid().dp(); ++replica) {
    for (int shard = 0; shard < state_->grid().tp(); ++shard) {
      std::vector<Rank*> pipeline;
      for (int rank = 0; rank < state_->grid().pp(); ++rank) {
        pipeline.push_back(&state_->RankAt({PipelineRank(rank), replica, shard}));
      }
      state_->AddPipeline(pipeline, place, outcome.began, &timeline);
    }
  }
  return outcome;
}

absl::Status Pipeline::Settle() {
  CHECK_EQ(steps_running(), 0u) << "a step is running";
  if (!std::exchange(state_->open, false)) return absl::OkStatus();
  return state_->OnAll([](Rank& self) { return self.executor().Run(kSettling, {}).status(); });
}

absl::StatusOr<std::vector<float>> Pipeline::Evaluate(absl::Span<const MicroBatchInfo> micro_batches) {
  RETURN_IF_ERROR(Settle());
  RETURN_IF_ERROR(state_->OnAll([micro_batches](Rank& self) -> absl::Status {
    ASSIGN_OR_RETURN(const StepResult* result, self.executor().Run(kEvaluation, {.micro_batches = self.ShareOf(micro_batches)}));
    self.Keep(*result, 0);
    return absl::OkStatus();
  }));
  return state_->Losses(kEvaluation, 0);
}

absl::StatusOr<std::vector<float>> Pipeline::Logits(const MicroBatchInfo& micro_batch) {
  CHECK(!micro_batch.logits_of.empty() && !micro_batch.training) << "logits of no token";
  RETURN_IF_ERROR(Settle());
  std::vector<float> logits(micro_batch.logits_of.size() * state_->shared.plan->job.graph.vocabulary);
  const auto bytes = absl::MakeSpan(reinterpret_cast<std::byte*>(logits.data()), logits.size() * sizeof(float));
  RETURN_IF_ERROR(state_->OnAll([&micro_batch, bytes](Rank& self) -> absl::Status {
    if (self.place().replica > 0) return absl::OkStatus();
    const auto wanted = self.place().shard == 0 ? bytes : absl::Span<std::byte>();  // all shards make the same ones
    return self.executor().Run(kOneForward, {.micro_batches = {&micro_batch, 1}, .logits = wanted}).status();
  }));
  return logits;
}

absl::StatusOr<std::vector<float>> Pipeline::ReadParameter(const std::string& name, int replica) {
  RETURN_IF_ERROR(Settle());
  std::map<int, ParameterPart> parts;  // by shard; stages that share a tied one have the same
  RETURN_IF_ERROR(state_->OnAll([&](Rank& self) -> absl::Status {
    if (self.place().replica != replica) return absl::OkStatus();
    for (LayerStage* stage : self.stages()) {
      for (const ParameterSpec& spec : stage->parameters()) {
        if (spec.name != name) continue;
        std::vector<float> mine(spec.elements());
        ASSIGN_OR_RETURN(const EventRef done, stage->Read(StateKind::kParameter, name, absl::MakeSpan(mine)));
        RETURN_IF_ERROR(state_->shared.world->Wait(done));
        std::lock_guard lock(state_->mutex);
        parts[self.place().shard] = {spec, std::move(mine)};
      }
    }
    return absl::OkStatus();
  }));
  if (parts.empty()) return absl::NotFoundError(absl::StrCat("no parameter is called ", name));
  std::vector<ParameterPart> of_shards;
  for (auto& [shard, part] : parts) of_shards.push_back(std::move(part));
  return Assemble(of_shards);
}

std::vector<RankMemory> Pipeline::memory() const {
  std::vector<RankMemory> memory;
  for (const auto& rank : state_->ranks) memory.push_back(rank->memory());
  return memory;
}

std::string Pipeline::FailureReport() const {
  const absl::Status cause = state_->shared.abort->cause();
  if (cause.ok()) return "";
  std::string text = absl::StrCat(std::string(cause.message()), "\n\n", state_->shared.abort->Report(), "\n");
  for (size_t rank = 0; rank < state_->ranks.size(); ++rank) {
    absl::StrAppend(&text, state_->grid().Describe(WorldRank(rank)), ":\n", state_->ranks[rank]->FlightRecord());
  }
  return text;
}

}  // namespace sluice
