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

// The transport of ranks that are all in this process.
void OpenHere(PipelineShared* shared) {
  const int ranks = static_cast<int>(shared->ranks.size());
  if (shared->plan->job.layout.device == DeviceKind::kCuda) {
    shared->peer_hub = std::make_unique<PeerHub>(shared->world, ranks);
    shared->options.open_transport = [hub = shared->peer_hub.get()](WorldRank rank, Device* device,
                                                                    const auto& channels, const auto& groups) {
      return hub->Open(rank, device, channels, groups);
    };
  } else {
    shared->hub = std::make_unique<InProcessHub>(shared->world, ranks);
    shared->options.open_transport = [hub = shared->hub.get()](WorldRank rank, Device*, const auto& channels,
                                                               const auto& groups) {
      return hub->Open(rank, channels, groups);
    };
  }
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
  bool post_validates() const { return shared.plan->post_validation.has_value(); }
  std::vector<RankOutcome> Outcomes(size_t place) const {
    std::vector<RankOutcome> outcomes;
    for (const auto& rank : ranks) outcomes.push_back(rank->OutcomeAt(place));
    return outcomes;
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
  if (plan.generating) {
    shared.programs = {plan.generating->prefill, plan.generating->prefill_one, plan.generating->decode};
  } else {
    shared.programs = {plan.training, plan.evaluation, plan.generation};
  }
  if (plan.post_validation.has_value()) {
    const PostValidationPrograms& others = *plan.post_validation;
    for (const Program* program : {&others.first_step, &others.guess_wrong, &others.settle}) {
      shared.programs.push_back(*program);
    }
  }
  for (const Program& program : shared.programs) shared.layout.programs.push_back(&program);
  shared.layout.messages = MessagesOf(plan);
  shared.layout.smaller_messages = SmallerMessagesOf(plan);
  shared.layout.tied = TiedUsesOf(plan);
  shared.layout.norm_bytes = NormBytesOf(plan);
  shared.layout.grid = plan.job.layout.grid();
  shared.abort = std::make_unique<PipelineAbort>(world, shared.layout.grid);
  shared.ranks = options.ranks;
  if (!shared.options.open_transport) {
    CHECK(options.ranks.empty()) << "ranks in other processes are reached by no transport";
    const int ranks = shared.layout.grid.ranks();
    for (int rank = 0; rank < ranks; ++rank) shared.ranks.push_back(WorldRank(rank));
    OpenHere(&shared);
  }
  ASSIGN_OR_RETURN(shared.devices, RankDevices::Create(plan, {.ranks = shared.ranks,
                                                              .threads_per_rank = options.threads_per_rank,
                                                              .processors = options.processors,
                                                              .gpu_share = options.gpu_share,
                                                              .measured = options.algorithms_measured}));
  if (options.on_gpus && !shared.devices.ToText().empty()) options.on_gpus(shared.devices.ToText());
  for (const WorldRank rank : shared.ranks) {
    pipeline->state_->ranks.push_back(std::make_unique<Rank>(&shared, rank));
  }
  RETURN_IF_ERROR(pipeline->state_->OnAll([](Rank&) { return absl::OkStatus(); }));
  if (options.connect_transport) RETURN_IF_ERROR(options.connect_transport());
  if (plan.job.initial) RETURN_IF_ERROR(pipeline->Restore(*plan.job.initial, RestoredState::kParameters));
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
                                                                               .update = step.update,
                                                                               .state_read = self.TakeStateRead()}));
      self.Keep(*result, place);
      return absl::OkStatus();
    });
  }
}

size_t Pipeline::steps_running() const { return state_->started - state_->finished; }

absl::StatusOr<std::vector<RankOutcome>> Pipeline::FinishRanksStep() {
  CHECK_GT(steps_running(), 0u) << "no step has been started";
  const size_t place = state_->finished++ % 2;
  RETURN_IF_ERROR(state_->Finish());
  return state_->Outcomes(place);
}

absl::StatusOr<TrainingOutcome> Pipeline::FinishStep() {
  const Nanoseconds began = state_->step_began[state_->finished % 2];
  ASSIGN_OR_RETURN(const std::vector<RankOutcome> ranks, FinishRanksStep());
  return Assemble(*state_->shared.plan, ranks, began);
}

absl::Status Pipeline::Settle() {
  CHECK_EQ(steps_running(), 0u) << "a step is running";
  if (!std::exchange(state_->open, false)) return absl::OkStatus();
  return state_->OnAll([](Rank& self) { return self.executor().Run(kSettling, {}).status(); });
}

absl::StatusOr<std::vector<RankOutcome>> Pipeline::EvaluateRanks(absl::Span<const MicroBatchInfo> micro_batches) {
  RETURN_IF_ERROR(Settle());
  RETURN_IF_ERROR(state_->OnAll([micro_batches](Rank& self) -> absl::Status {
    ASSIGN_OR_RETURN(const StepResult* result,
                     self.executor().Run(kEvaluation, {.micro_batches = self.ShareOf(micro_batches)}));
    self.Keep(*result, 0);
    return absl::OkStatus();
  }));
  return state_->Outcomes(0);
}

absl::StatusOr<std::vector<float>> Pipeline::Evaluate(absl::Span<const MicroBatchInfo> micro_batches) {
  ASSIGN_OR_RETURN(const std::vector<RankOutcome> ranks, EvaluateRanks(micro_batches));
  return LossSums(*state_->shared.plan, ranks);
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
  const Placement& placement = state_->shared.plan->placement();
  const PipelineRank last = placement.RankOf(StageId(placement.stages() - 1));
  const WorldRank has_them = state_->shared.layout.grid.RankOf({last, 0, 0});
  const auto& here = state_->shared.ranks;
  if (std::find(here.begin(), here.end(), has_them) == here.end()) logits.clear();
  return logits;
}

absl::Status Pipeline::BeginSequence(int64_t sequence, const SamplingRules& rules, absl::Span<const uint32_t> seen) {
  return state_->OnAll([&](Rank& self) -> absl::Status {
    for (LayerStage* stage : self.stages()) {
      RETURN_IF_ERROR(state_->shared.world->Wait(stage->BeginSequence(sequence, rules, seen)));
    }
    return absl::OkStatus();
  });
}

absl::Status Pipeline::Generate(GenerationPass pass, absl::Span<const MicroBatchInfo> micro_batches,
                                absl::Span<int32_t> drawn) {
  return state_->OnAll([=](Rank& self) -> absl::Status {
    const auto wanted = self.place().shard == 0 ? drawn : absl::Span<int32_t>();  // all shards draw the same ones
    return self.executor().Run(static_cast<size_t>(pass), {.micro_batches = micro_batches, .drawn = wanted}).status();
  });
}

absl::StatusOr<std::vector<float>> Pipeline::ReadParameter(const std::string& name, int replica) {
  ASSIGN_OR_RETURN(const ShardValues shards, ReadShards(name, replica));
  return CompleteParameter(*state_->shared.plan, name, shards);
}

absl::StatusOr<ShardValues> Pipeline::ReadShards(const std::string& name, int replica) {
  RETURN_IF_ERROR(Settle());
  ShardValues shards;  // stages that share a tied tensor have the same
  RETURN_IF_ERROR(state_->OnAll([&](Rank& self) -> absl::Status {
    if (self.place().replica != replica) return absl::OkStatus();
    for (LayerStage* stage : self.stages()) {
      for (const ParameterSpec& spec : stage->parameters()) {
        if (spec.name != name) continue;
        std::vector<float> mine(spec.elements());
        ASSIGN_OR_RETURN(const EventRef done, stage->Read(StateKind::kParameter, name, absl::MakeSpan(mine)));
        RETURN_IF_ERROR(state_->shared.world->Wait(done));
        std::lock_guard lock(state_->mutex);
        shards[self.place().shard] = std::move(mine);
      }
    }
    return absl::OkStatus();
  }));
  return shards;
}

absl::StatusOr<std::vector<RankSnapshot>> Pipeline::Snapshot() {
  RETURN_IF_ERROR(Settle());
  RETURN_IF_ERROR(state_->OnAll([](Rank& self) { return self.BeginSnapshot(); }));
  std::vector<RankSnapshot> snapshots;
  for (const auto& rank : state_->ranks) snapshots.push_back(rank->snapshot());
  return snapshots;
}

absl::Status Pipeline::Restore(const ParameterSource& source, RestoredState what) {
  RETURN_IF_ERROR(source.Check(state_->shared.plan->job.graph));
  RETURN_IF_ERROR(Settle());
  return state_->OnAll([&](Rank& self) -> absl::Status {
    const absl::Status status = RestoreStages(state_->shared.world, self.stages(), source, what);
    if (!status.ok()) state_->shared.abort->Abort(status);
    return status;
  });
}

absl::StatusOr<std::vector<TensorHash>> Pipeline::HashParameters() {
  RETURN_IF_ERROR(Settle());
  std::vector<TensorHash> all;
  RETURN_IF_ERROR(state_->OnAll([&](Rank& self) -> absl::Status {
    for (LayerStage* stage : self.stages()) {
      const std::vector<ParameterSpec> specs = stage->parameters();
      std::vector<uint64_t> hashes(specs.size());
      RETURN_IF_ERROR(state_->shared.world->Wait(stage->HashParameters(absl::MakeSpan(hashes))));
      std::lock_guard lock(state_->mutex);
      for (size_t i = 0; i < specs.size(); ++i) all.push_back({self.rank(), specs[i].name, hashes[i]});
    }
    return absl::OkStatus();
  }));
  return all;
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
  for (const auto& rank : state_->ranks) {
    absl::StrAppend(&text, state_->shared.layout.grid.Describe(rank->rank()), ":\n", rank->FlightRecord());
  }
  return text;
}

uint64_t Pipeline::moves() const {
  uint64_t moves = state_->shared.abort->moves();
  for (const auto& rank : state_->ranks) moves += rank->bytes_moved();
  return moves;
}

const EventRef& Pipeline::failed() const { return state_->shared.abort->event(); }

void Pipeline::Abort(const absl::Status& cause) { state_->shared.abort->Abort(cause); }

}  // namespace sluice
