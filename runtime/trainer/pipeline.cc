#include "runtime/trainer/pipeline.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "runtime/trainer/rank.h"
#include "scheduler/memory_samples.h"

namespace sluice {
namespace {

enum ProgramNumber : size_t { kTraining, kEvaluation, kOneForward };

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
  Nanoseconds step_began = 0;
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
  std::vector<float> Losses(size_t micro_batches) const {
    for (const auto& rank : ranks) {
      const auto losses = rank->result.losses;
      if (!losses.empty()) return {losses.begin(), losses.begin() + static_cast<int64_t>(micro_batches)};
    }
    return {};
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
  for (const Program& program : shared.programs) shared.layout.programs.push_back(&program);
  shared.layout.messages = MessagesOf(plan);
  shared.layout.tied = TiedUsesOf(plan);
  const int ranks = plan.training.placement.ranks();
  shared.abort = std::make_unique<PipelineAbort>(world, ranks);
  shared.hub = std::make_unique<InProcessHub>(world, ranks);
  for (int rank = 0; rank < ranks; ++rank) {
    pipeline->state_->ranks.push_back(std::make_unique<Rank>(&shared, PipelineRank(rank)));
  }
  RETURN_IF_ERROR(pipeline->state_->OnAll([](Rank&) { return absl::OkStatus(); }));
  return pipeline;
}

Pipeline::~Pipeline() {
  for (const auto& rank : state_->ranks) rank->Close();
}

void Pipeline::StartStep(const TrainingStep& step) {
  state_->step_began = state_->shared.world->Now();
  for (const auto& rank : state_->ranks) {
    rank->Start([step](Rank& self) -> absl::Status {
      ASSIGN_OR_RETURN(const StepResult* result, self.executor().Run(kTraining, {.micro_batches = step.micro_batches,
                                                                                .learning_rate = step.learning_rate,
                                                                                .update = step.update}));
      self.result = *result;
      return absl::OkStatus();
    });
  }
}

absl::StatusOr<TrainingOutcome> Pipeline::FinishStep() {
  RETURN_IF_ERROR(state_->Finish());
  const Program& program = state_->shared.programs[kTraining];
  TrainingOutcome outcome;
  outcome.loss_sums = state_->Losses(program.micro_batches);
  outcome.control = state_->ranks[0]->result.control;
  Timeline& timeline = outcome.timeline;
  timeline.name = program.name;
  timeline.source = TimelineSource::kMeasured;
  timeline.ranks = program.placement.ranks();
  timeline.stages = program.placement.stages();
  timeline.micro_batches = program.micro_batches;
  timeline.queues = program.queues;
  for (const auto& rank : state_->ranks) {
    for (Span span : rank->result.spans) {
      span.begin_ns -= state_->step_began;
      span.end_ns -= state_->step_began;
      timeline.spans.push_back(span);
    }
  }
  timeline.samples = MemorySamples(program, state_->shared.plan->stage_bytes, timeline.spans);
  return outcome;
}

absl::StatusOr<std::vector<float>> Pipeline::Evaluate(absl::Span<const MicroBatchInfo> micro_batches) {
  RETURN_IF_ERROR(state_->OnAll([micro_batches](Rank& self) -> absl::Status {
    ASSIGN_OR_RETURN(const StepResult* result, self.executor().Run(kEvaluation, {.micro_batches = micro_batches}));
    self.result = *result;
    return absl::OkStatus();
  }));
  return state_->Losses(micro_batches.size());
}

absl::StatusOr<std::vector<float>> Pipeline::Logits(const MicroBatchInfo& micro_batch, int64_t token) {
  const int64_t vocabulary = state_->shared.plan->job.graph.vocabulary;
  std::vector<float> logits(micro_batch.rows * micro_batch.sequence * vocabulary);
  const auto bytes = absl::MakeSpan(reinterpret_cast<std::byte*>(logits.data()), logits.size() * sizeof(float));
  RETURN_IF_ERROR(state_->OnAll([&micro_batch, bytes](Rank& self) -> absl::Status {
    return self.executor().Run(kOneForward, {.micro_batches = {&micro_batch, 1}, .logits = bytes}).status();
  }));
  const auto begin = logits.begin() + token * vocabulary;
  return std::vector<float>(begin, begin + vocabulary);
}

absl::StatusOr<std::vector<float>> Pipeline::ReadParameter(const std::string& name) {
  std::vector<float> values;
  RETURN_IF_ERROR(state_->OnAll([&](Rank& self) -> absl::Status {
    for (LayerStage* stage : self.stages()) {
      for (const ParameterSpec& spec : stage->parameters()) {
        if (spec.name != name) continue;
        std::vector<float> mine(spec.elements());
        ASSIGN_OR_RETURN(const EventRef done, stage->Read(StateKind::kParameter, name, absl::MakeSpan(mine)));
        RETURN_IF_ERROR(state_->shared.world->Wait(done));
        std::lock_guard lock(state_->mutex);
        values = std::move(mine);
      }
    }
    return absl::OkStatus();
  }));
  if (values.empty()) return absl::NotFoundError(absl::StrCat("no parameter is called ", name));
  return values;
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
    absl::StrAppend(&text, "rank ", rank, ":\n", state_->ranks[rank]->FlightRecord());
  }
  return text;
}

}  // namespace sluice
