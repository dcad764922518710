#include "runtime/trainer/rank.h"

#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"

namespace sluice {

Rank::Rank(const PipelineShared* shared, WorldRank rank)
    : shared_(shared),
      rank_(rank),
      place_(shared->layout.grid.PlaceOf(rank)),
      layout_(shared->layout),
      started_(MakeRef<Signal>()) {
  layout_.replica = place_.replica;
  layout_.shard = place_.shard;
  task_ = shared_->world->Spawn({.name = absl::StrCat("rank", rank.value())}, [this] { Run(); });
}

Rank::~Rank() { CHECK(task_->Done()) << "Close() comes first"; }

void Rank::Start(Work work) {
  const Ref<Signal> finished = MakeRef<Signal>();
  unfinished_.push_back(finished);
  Ref<Signal> started;
  {
    std::lock_guard lock(mutex_);
    if (pieces_.empty()) started = started_;
    pieces_.push_back({std::move(work), finished});
  }
  if (started) started->Set(absl::OkStatus(), shared_->world->Now());
}

absl::Status Rank::Finish() {
  CHECK(!unfinished_.empty()) << "Start() comes first";
  const EventRef finished = std::move(unfinished_.front());
  unfinished_.pop_front();
  return shared_->world->Wait(finished);
}

absl::Span<const MicroBatchInfo> Rank::ShareOf(absl::Span<const MicroBatchInfo> micro_batches) const {
  const size_t share = micro_batches.size() / layout_.grid.dp();
  return micro_batches.subspan(place_.replica * share, share);
}

void Rank::Keep(const StepResult& result, size_t place) {
  RankOutcome& kept = results_[place];
  kept.losses.assign(result.losses.begin(), result.losses.end());
  kept.control = result.control;
  kept.spans.assign(result.spans.begin(), result.spans.end());
}

RankOutcome Rank::OutcomeAt(size_t place) const {
  RankOutcome outcome = results_[place];
  outcome.rank = rank_;
  outcome.memory = memory();
  return outcome;
}

void Rank::Close() {
  Start(nullptr);
  CHECK_OK(shared_->world->Wait(task_));
}

void Rank::Run() {
  set_up_ = SetUp();
  if (!set_up_.ok()) shared_->abort->Abort(set_up_);
  for (;;) {
    CHECK_OK(shared_->world->Wait(started_));
    Piece piece;
    {
      std::lock_guard lock(mutex_);
      piece = std::move(pieces_.front());
      pieces_.pop_front();
      if (pieces_.empty()) started_ = MakeRef<Signal>();
    }
    if (piece.work == nullptr) break;
    absl::Status status = set_up_;
    try {
      if (status.ok()) status = piece.work(*this);
    } catch (const std::exception& error) {
      status = absl::InternalError(absl::StrCat(layout_.grid.Describe(rank_), ": ", error.what()));
      shared_->abort->Abort(status);
    }
    piece.finished->Set(std::move(status), shared_->world->Now());
  }
  TakeDown();
}

absl::Status Rank::SetUp() {
  ASSIGN_OR_RETURN(device_, shared_->devices.New(shared_->world, rank_));
  if (shared_->options.wrap_device) wrapped_device_ = shared_->options.wrap_device(device_.get(), rank_);
  Device* const device = this->device();
  stream_ = device->NewStream(absl::StrCat("compute", rank_.value()));
  RETURN_IF_ERROR(OpenTransport());
  std::vector<std::unique_ptr<Stage>> stages;
  RETURN_IF_ERROR(MakeStages(&stages));
  ASSIGN_OR_RETURN(model_, RankModel::Create(device, stream_.get(), std::move(stages), ModelOptions()));
  Watchdog watchdog{.predicted_step = shared_->plan->metrics.step_ns,
                    .moves_elsewhere = shared_->options.moves_elsewhere};
  const double seconds = shared_->options.watchdog_seconds;
  constexpr double kLongest = 1e9;  // thirty years: as good as off, and far from the end of time
  watchdog.limit = static_cast<Nanoseconds>((seconds > 0 ? std::min(seconds, kLongest) : kLongest) * kSecond);
  ASSIGN_OR_RETURN(executor_, Executor::Create({.world = shared_->world,
                                                .device = device,
                                                .stream = stream_.get(),
                                                .transport = transport_.get(),
                                                .model = model_.get(),
                                                .abort = shared_->abort.get(),
                                                .rank = place_.pipeline,
                                                .layout = layout_,
                                                .watchdog = watchdog}));
  stream_->Drain();  // initial values are no part of the first step
  return absl::OkStatus();
}

absl::Status Rank::OpenTransport() {
  ASSIGN_OR_RETURN(const Links links, LinksOf(layout_, place_.pipeline));
  ASSIGN_OR_RETURN(transport_, shared_->options.open_transport(rank_, device_.get(), links.channels, links.groups));
  const int shards = layout_.grid.tp();
  if (shards == 1) return absl::OkStatus();
  const GroupSpec group = ShardGroup(layout_, place_.pipeline);
  TensorGroup::OnExchange on_exchange;
  if (const auto& tell = shared_->options.on_exchange) {
    on_exchange = [tell, rank = rank_](const EventRef& ready, const EventRef& exchanged) { tell(rank, ready, exchanged); };
  }
  shards_ = std::make_unique<TensorGroup>(transport_.get(), group.id, shards, place_.shard, std::move(on_exchange));
  return absl::OkStatus();
}

absl::Status Rank::MakeStages(std::vector<std::unique_ptr<Stage>>* stages) {
  const Plan& plan = *shared_->plan;
  for (const StagePlan& stage : plan.stages) {
    if (stage.rank != place_.pipeline) continue;
    StageOptions options = StageOptionsOf(plan, stage, place_.replica, place_.shard);
    if (const auto& on_layer = shared_->options.on_layer) {
      options.on_layer = [on_layer, rank = rank_](const LayerWork* work) { on_layer(rank, work); };
    }
    ASSIGN_OR_RETURN(auto made, LayerStage::Create(device(), stream_.get(), plan.job.graph, stage.id,
                                                   {stage.begin, stage.end}, options, shards_.get()));
    layer_stages_.push_back(made.get());
    stages->push_back(std::move(made));
  }
  return absl::OkStatus();
}

absl::Status Rank::BeginSnapshot() {
  if (state_copy_ == nullptr) {
    ASSIGN_OR_RETURN(state_copy_, StateCopy::Create(shared_->world, device(), absl::StrCat("snapshot", rank_.value()),
                                                    layer_stages_));
  }
  state_copy_->Begin();
  state_read_ = snapshot().copied;
  return absl::OkStatus();
}

RankModelOptions Rank::ModelOptions() const {
  const Plan& plan = *shared_->plan;
  const Placement& placement = plan.placement();
  const int pp = layout_.grid.pp();
  RankModelOptions options{.place = place_.replica * pp + place_.pipeline.value(),
                           .max_norm = static_cast<float>(plan.job.optimizer.clip_norm)};
  if (plan.generating) return options;  // no step ends
  for (const StagePlan& stage : plan.stages) {
    if (stage.copy > 0) continue;
    auto& norm = options.norms.emplace_back();
    norm.stage = stage.id;
    norm.runs = NormRuns(plan.job.graph, {stage.begin, stage.end}, StageOptionsOf(plan, stage));
    for (int replica = 0; replica < layout_.grid.dp(); ++replica) {
      for (int copy = 0; copy < placement.copies(); ++copy) {
        norm.places.push_back(replica * pp + placement.RankOf(stage.id, copy).value());
      }
    }
  }
  return options;
}

void Rank::TakeDown() {
  {
    std::lock_guard lock(mutex_);  // FlightRecord() may be reading it
    executor_.reset();
  }
  transport_.reset();
  state_copy_.reset();
  layer_stages_.clear();
  model_.reset();
  stream_.reset();
}

RankMemory Rank::memory() const {
  const MemoryUse use = device_ == nullptr ? MemoryUse{} : device_->memory();
  return {.planned_bytes = shared_->plan->report.ranks[place_.pipeline.index()].allocated_bytes,
          .peak_bytes = use.peak_bytes,
          .allocations = use.allocations};
}

std::string Rank::FlightRecord() const {
  std::lock_guard lock(mutex_);
  return executor_ == nullptr ? std::string() : executor_->DumpFlightRecorder();
}

}  // namespace sluice
