#include "tests/sim/affine_job.h"

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/philox.h"
#include "base/status.h"
#include "runtime/transport/in_process.h"
#include "tests/sim/affine_stage.h"
#include "tests/sim/fixed_slots_transport.h"
#include "tests/sim/test_device.h"

namespace sluice {
namespace {

// One rank's things, in the order in which they may be built; slots travel, so devices die after all executors.
struct RankState {
  std::unique_ptr<TestDevice> device;
  std::unique_ptr<FaultPlan> faults;
  std::unique_ptr<Stream> stream;
  std::vector<AffineStage*> stages;
  std::unique_ptr<RankModel> model;
  std::unique_ptr<Transport> transport;
  std::unique_ptr<Executor> executor;
  absl::Status status;
  std::vector<std::vector<float>> losses;
  std::vector<float> norms;
  int replays = 0;
  std::vector<std::vector<Span>> spans;
  std::vector<uint32_t> logits;
};

class AffineJob {
 public:
  AffineJob(World* world, const AffineJobOptions& options)
      : world_(world),
        options_(options),
        grid_(options.training.placement.ranks(), options.training.replicas, 1,
              {GridAxis::kPipeline, GridAxis::kData, GridAxis::kTensor}),
        ranks_(grid_.ranks()),
        abort_(world, grid_),
        hub_(world, ranks_.size()) {
    const int stages = placement().stages();
    layout_.grid = grid_;
    layout_.programs.push_back(&options.training);
    for (const Program& program : options.others) layout_.programs.push_back(&program);
    if (options.post_validation.has_value()) {
      first_step_ = layout_.programs.size();
      layout_.programs.push_back(&options.post_validation->first_step);
      layout_.programs.push_back(&options.post_validation->guess_wrong);
      layout_.programs.push_back(&options.post_validation->settle);
      layout_.norm_bytes = 4 * 2 * placement().stages();
    }
    for (int s = 0; s < stages; ++s) {
      layout_.messages.push_back({.activation_bytes = s + 1 < stages ? kAffineWords * 4 : 0,
                                  .gradient_bytes = s > 0 ? kAffineWords * 4 : 0,
                                  .activation = absl::StrCat("[", kAffineWords, "] u32")});
    }
    if (options.tied && stages > 1) {
      layout_.tied.push_back({.tensor = 0, .name = "t", .stages = {StageId(0), StageId(stages - 1)}});
    }
  }

  AffineJobResult Run() {
    std::vector<EventRef> tasks;
    for (size_t r = 0; r < ranks_.size(); ++r) {
      tasks.push_back(world_->Spawn({.name = absl::StrCat("rank", r)}, [this, r] {
        RankState& rank = ranks_[r];
        const GridPlace place = grid_.PlaceOf(WorldRank(r));
        rank.status = Build(place, rank);
        if (rank.status.ok()) {
          rank.status = RunPrograms(place, rank);
        } else {
          abort_.Abort(Annotate(rank.status, absl::StrCat("rank ", r)));
          rank.status = abort_.cause();
        }
      }));
    }
    for (const EventRef& task : tasks) CHECK_OK(world_->Wait(task));
    for (RankState& rank : ranks_) {
      if (rank.faults != nullptr) rank.faults->End();
    }
    AffineJobResult result = Collect();
    for (RankState& rank : ranks_) rank.executor = nullptr;
    for (RankState& rank : ranks_) rank.transport = nullptr;
    for (RankState& rank : ranks_) rank.model = nullptr;
    for (RankState& rank : ranks_) rank.stream = nullptr;
    return result;
  }

 private:
  const Placement& placement() const { return options_.training.placement; }

  std::set<int> PoisonedSteps(int stage) const {
    const auto steps = options_.poisoned_steps.find(stage);
    return steps == options_.poisoned_steps.end() ? std::set<int>() : steps->second;
  }

  int32_t PoolMax(Pool pool, StageId stage) const {
    int32_t size = 0;
    for (const Program* program : layout_.programs) size = std::max(size, program->PoolSize(pool, stage));
    return size;
  }

  absl::Status Build(const GridPlace& place, RankState& rank) {
    const PipelineRank r = place.pipeline;
    PipelineLayout layout = layout_;
    layout.replica = place.replica;
    rank.device = std::make_unique<TestDevice>(world_, TestDeviceOptions{options_.memory_limit_bytes});
    std::vector<Fault> faults;
    for (const Fault& fault : options_.faults) {
      if (fault.rank == r && fault.replica == place.replica) faults.push_back(fault);
    }
    rank.faults = std::make_unique<FaultPlan>(world_, faults);
    rank.stream = rank.device->NewStream(absl::StrCat("stream", r.value()));
    auto* stream = static_cast<TestStream*>(rank.stream.get());
    RankModelOptions model_options{.place = place.replica * placement().ranks() + r.value(), .max_norm = options_.max_norm};
    std::vector<std::unique_ptr<Stage>> stages;
    for (int s = 0; s < placement().stages(); ++s) {
      const StageId id(s);
      auto& norm = model_options.norms.emplace_back();
      norm = {.stage = id, .runs = AffineNormRuns(grid_.dp())};
      for (int replica = 0; replica < grid_.dp(); ++replica) {
        norm.places.push_back(replica * placement().ranks() + placement().RankOf(id).value());
      }
      if (placement().RankOf(id) != r) continue;
      ASSIGN_OR_RETURN(
          auto stage,
          AffineStage::Create(rank.device.get(), stream,
                              {.id = id,
                               .stages = placement().stages(),
                               .micro_batches = options_.training.micro_batches,
                               .replica = place.replica,
                               .replicas = grid_.dp(),
                               .zero1 = options_.zero1,
                               .stash_slots = PoolMax(Pool::kStash, id),
                               .gradient_stash_slots = PoolMax(Pool::kGradientStash, id),
                               .tied = options_.tied,
                               .max_norm = options_.max_norm,
                               .poisoned_steps = PoisonedSteps(s),
                               .forward_cost = options_.forward_costs.empty() ? 0 : options_.forward_costs[s]}));
      rank.stages.push_back(stage.get());
      stages.push_back(NewFaultyStage(std::move(stage), stream, rank.faults.get()));
    }
    ASSIGN_OR_RETURN(rank.model, RankModel::Create(rank.device.get(), stream, std::move(stages), model_options));
    ASSIGN_OR_RETURN(const Links links, LinksOf(layout, r));
    ASSIGN_OR_RETURN(auto endpoint, hub_.Open(grid_.RankOf(place), links.channels, links.groups));
    if (options_.fixed_slots) endpoint = NewFixedSlotsTransport(std::move(endpoint), world_, rank.device.get());
    rank.transport = NewFaultyTransport(std::move(endpoint), rank.faults.get());
    ASSIGN_OR_RETURN(rank.executor, Executor::Create({.world = world_,
                                                      .device = rank.device.get(),
                                                      .stream = stream,
                                                      .transport = rank.transport.get(),
                                                      .model = rank.model.get(),
                                                      .abort = &abort_,
                                                      .rank = r,
                                                      .layout = layout,
                                                      .watchdog = options_.watchdog,
                                                      .compute_ahead = options_.compute_ahead}));
    return absl::OkStatus();
  }

  absl::Status RunPrograms(const GridPlace& place, RankState& rank) {
    std::vector<std::vector<MicroBatchInfo>> inputs;
    for (int step = 0; step < options_.steps; ++step) {
      inputs.push_back(AffineMicroBatches(options_.training.micro_batches, step, place.replica));
    }
    rank.losses.reserve(inputs.size() + options_.others.size());
    rank.spans.reserve(inputs.size() + options_.others.size());
    rank.norms.reserve(inputs.size());
    for (int step = 0; step < options_.steps; ++step) {
      if (options_.before_step) options_.before_step(place.pipeline, step);
      const size_t program = first_step_ > 0 && step == 0 ? first_step_ : 0;
      ASSIGN_OR_RETURN(const StepResult* result, rank.executor->Run(program, {.micro_batches = inputs[step],
                                                                              .learning_rate = AffineLearningRate(step),
                                                                              .update = step + 1}));
      if (options_.before_step) continue;  // it watches for allocations: keep nothing
      Keep(rank, *result);
      rank.norms.push_back(result->control.norm);
      rank.replays += std::any_of(result->spans.begin(), result->spans.end(),
                                  [](const Span& span) { return (span.action.flags & kDiscarded) != 0; });
    }
    if (first_step_ > 0 && options_.steps > 0) RETURN_IF_ERROR(rank.executor->Run(first_step_ + 2, {}).status());
    std::vector<uint32_t> logits(kAffineWords);
    for (size_t i = 0; i < options_.others.size(); ++i) {
      const std::vector<MicroBatchInfo> infos = AffineMicroBatches(options_.others[i].micro_batches, 1000 + i, place.replica);
      ASSIGN_OR_RETURN(const StepResult* result,
                       rank.executor->Run(1 + i, {.micro_batches = infos,
                                                  .logits = absl::MakeSpan(reinterpret_cast<std::byte*>(logits.data()),
                                                                           4 * logits.size())}));
      Keep(rank, *result);
    }
    rank.logits = logits;
    return absl::OkStatus();
  }

  static void Keep(RankState& rank, const StepResult& result) {
    rank.losses.emplace_back(result.losses.begin(), result.losses.end());
    rank.spans.emplace_back(result.spans.begin(), result.spans.end());
  }

  AffineJobResult Collect() {
    AffineJobResult result;
    const PipelineRank last = placement().RankOf(StageId(placement().stages() - 1));
    const auto last_of = [&](int replica) -> RankState& { return ranks_[grid_.RankOf({last, replica, 0}).index()]; };
    result.losses = last_of(0).losses;
    for (int replica = 1; replica < grid_.dp(); ++replica) {
      const auto& losses = last_of(replica).losses;
      for (size_t i = 0; i < std::min(losses.size(), result.losses.size()); ++i) {
        result.losses[i].insert(result.losses[i].end(), losses[i].begin(), losses[i].end());
      }
    }
    result.norms = ranks_.back().norms;  // with post-validation the last rank is the first to know
    result.replays = ranks_[0].replays;
    result.logits = last_of(0).logits;
    std::map<StageId, std::vector<uint32_t>> parameters;
    for (RankState& rank : ranks_) {
      const bool first_replica = &rank < ranks_.data() + placement().ranks();
      result.statuses.push_back(rank.status);
      result.allocations.push_back(rank.device == nullptr ? 0 : rank.device->memory().allocations);
      result.flight_records.push_back(rank.executor == nullptr ? "" : rank.executor->DumpFlightRecorder());
      for (AffineStage* stage : rank.stages) {
        if (rank.model == nullptr) continue;
        const auto [known, added] = parameters.try_emplace(stage->id(), stage->parameters());
        result.replicas_agree &= added || known->second == stage->parameters();
      }
      for (size_t step = 0; step < rank.spans.size() && first_replica; ++step) {
        if (result.spans.size() <= step) result.spans.emplace_back();
        result.spans[step].insert(result.spans[step].end(), rank.spans[step].begin(), rank.spans[step].end());
      }
    }
    for (auto& [id, numbers] : parameters) result.parameters.push_back(std::move(numbers));
    result.report = abort_.Report();
    return result;
  }

  World* const world_;
  const AffineJobOptions& options_;
  PipelineLayout layout_;
  size_t first_step_ = 0;  // number of the first step's program; those of a wrong guess and of settling follow; 0: none
  const RankGrid grid_;
  std::vector<RankState> ranks_;  // replica by replica
  PipelineAbort abort_;
  InProcessHub hub_;
};

}  // namespace

std::vector<MicroBatchInfo> AffineMicroBatches(int micro_batches, int step, int replica) {
  static std::mutex mutex;
  static std::map<std::pair<int, int>, std::vector<int32_t>> arrays;
  std::lock_guard lock(mutex);
  std::vector<MicroBatchInfo> infos;
  for (int i = 0; i < micro_batches; ++i) {
    const int global = replica * micro_batches + i;
    std::vector<int32_t>& numbers = arrays[{step, global}];
    if (numbers.empty()) {
      for (int64_t j = 0; j < 2 * kAffineWords; ++j) {
        numbers.push_back(static_cast<int32_t>(MixBits(1000 * step + 50 * global + j) % 1000));
      }
    }
    infos.push_back({.index = MicroBatch(i),
                     .rows = 1,
                     .sequence = kAffineWords,
                     .tokens = absl::MakeSpan(numbers).first(kAffineWords),
                     .targets = absl::MakeSpan(numbers).last(kAffineWords),
                     .step = step,
                     .gradient_group = replica,
                     .accumulate = i == 0 ? Accumulate::kOverwrite : Accumulate::kAdd});
  }
  return infos;
}

AffineJobResult RunAffineJob(World* world, const AffineJobOptions& options) { return AffineJob(world, options).Run(); }

}  // namespace sluice
