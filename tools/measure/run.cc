#include "tools/measure/run.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/status.h"
#include "runtime/data/batch.h"
#include "runtime/trainer/pipeline.h"

namespace sluice::tools {
namespace {

constexpr int kWarmUpSteps = 2;

PipelineOptions OptionsFor(const Plan& plan, const RunOptions& options, std::vector<OperationProfile>* profiles) {
  PipelineOptions pipeline{
      .threads_per_rank = plan.job.layout.threads_per_rank, .processors = options.processors, .watchdog_seconds = 0};
  pipeline.algorithms_measured = options.algorithms_measured;
  if (options.profiling == Profiling::kOff) return pipeline;
  pipeline.wrap_device = [profiles](Device* device, WorldRank rank) {
    return NewProfiledDevice(device, &(*profiles)[rank.index()]);
  };
  pipeline.on_layer = [profiles](WorldRank rank, const LayerWork* work) {
    (*profiles)[rank.index()].SetLabel(work == nullptr ? -1 : LabelOf(*work));
  };
  // Waiting for the other shards included.
  pipeline.on_exchange = [profiles](WorldRank rank, const EventRef& ready, const EventRef& exchanged) {
    (*profiles)[rank.index()].Add({{.operation = "exchange of shards", .calls = 1}, exchanged, ready});
  };
  return pipeline;
}

std::vector<OperationTime> Collect(std::vector<OperationProfile>& profiles) {
  std::vector<OperationTime> all;
  for (OperationProfile& profile : profiles) {
    for (OperationTime& time : profile.Collect()) all.push_back(std::move(time));
  }
  return all;
}

}  // namespace

int LabelOf(const LayerWork& work) { return static_cast<int>(work.node) * kLayerPasses + static_cast<int>(work.pass); }

LayerWork WorkOf(int label) {
  return {.node = static_cast<size_t>(label / kLayerPasses), .pass = static_cast<LayerPass>(label % kLayerPasses)};
}

absl::StatusOr<StepRun> RunSteps(World* world, const Plan& plan, const Dataset& dataset, const RunOptions& options) {
  const JobConfig& job = plan.job;
  std::vector<OperationProfile> profiles(job.layout.grid().ranks());
  ASSIGN_OR_RETURN(const auto pipeline, Pipeline::Create(world, plan, OptionsFor(plan, options, &profiles)));
  const BatchShape shape = ShapeOf(job.training);
  Batch even(shape), odd(shape);
  const BatchMaker batches(&dataset, shape, {}, job.training.seed);
  // As the trainer does; profiles are collected between steps.
  const int ahead = plan.post_validation.has_value() && options.profiling == Profiling::kOff ? 1 : 0;
  const int steps = kWarmUpSteps + options.steps;
  StepRun run;
  Nanoseconds ended = 0;
  std::array<Nanoseconds, 2> began = {};
  for (int step = 0; step < steps + ahead; ++step) {
    if (step < steps) {
      Batch* const batch = step % 2 == 0 ? &even : &odd;
      batches.Training(step, batch);
      began[step % 2] = world->Now();
      pipeline->StartStep({.micro_batches = batch->micro_batches, .learning_rate = 1e-4f, .update = step + 1});
    }
    const int finishes = step - ahead;
    if (finishes < 0) continue;
    ASSIGN_OR_RETURN(TrainingOutcome outcome, pipeline->FinishStep());
    const Nanoseconds since = std::max(began[finishes % 2], ended);
    ended = world->Now();
    if (finishes == 0) run.first_step_ended = ended;
    std::vector<OperationTime> operations = Collect(profiles);
    if (finishes < kWarmUpSteps) continue;
    run.step_ms.push_back(static_cast<double>(ended - since) / kMillisecond);
    run.timelines.push_back(std::move(outcome.timeline));
    if (options.profiling == Profiling::kOn) run.operations.push_back(std::move(operations));
  }
  return run;
}

}  // namespace sluice::tools
