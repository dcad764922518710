#include "runtime/trainer/worker.h"

#include <numeric>
#include <utility>

#include "base/check.h"
#include "base/status.h"
#include "runtime/checkpoint/checkpoint.h"

namespace sluice {
Worker::Worker(World* world, const Plan& plan, const Dataset& dataset)
    : shape_(ShapeOf(plan.job.training)),
      batches_(&dataset, shape_, RulesOf(plan.job.data), plan.job.training.seed),
      evaluation_batch_(shape_),
      saver_(world) {
  for (auto& batch : step_batches_) batch = std::make_unique<Batch>(shape_);
}

absl::StatusOr<std::unique_ptr<Worker>> Worker::Create(World* world, const Plan& plan, const Dataset& dataset,
                                                       const PipelineOptions& options) {
  auto worker = std::unique_ptr<Worker>(new Worker(world, plan, dataset));
  ASSIGN_OR_RETURN(worker->pipeline_, Pipeline::Create(world, plan, options));
  return worker;
}

const Batch& Worker::Prepare(int64_t step) {
  const size_t place = step % step_batches_.size();
  if (prepared_[place] != step) {
    prepared_[place] = step;
    batches_.Training(step, step_batches_[place].get());
  }
  return *step_batches_[place];
}

void Worker::StartStep(const StepCommand& command) {
  pipeline_->StartStep({.micro_batches = Prepare(command.step).micro_batches,
                        .learning_rate = command.learning_rate,
                        .update = command.update});
  Prepare(command.step + 1);
}

absl::StatusOr<std::vector<RankOutcome>> Worker::FinishStep() { return pipeline_->FinishRanksStep(); }

absl::StatusOr<std::vector<RankOutcome>> Worker::Evaluate(int64_t index, int64_t batches_max) {
  batches_.Evaluation(index, batches_max, &evaluation_batch_);
  return pipeline_->EvaluateRanks(evaluation_batch_.micro_batches);
}

absl::StatusOr<std::vector<float>> Worker::Logits(absl::Span<const int32_t> tokens) {
  const auto length = static_cast<int64_t>(tokens.size());
  CHECK(length > 0 && length <= shape_.sequence) << length << " tokens";
  std::vector<int32_t> positions(length);
  std::iota(positions.begin(), positions.end(), 0);
  const std::vector<int32_t> samples{0}, last{static_cast<int32_t>(length - 1)};
  return pipeline_->Logits({.index = MicroBatch(0),
                            .rows = 1,
                            .sequence = length,
                            .tokens = tokens,
                            .positions = positions,
                            .samples = samples,
                            .training = false,
                            .logits_of = last});
}

absl::Status Worker::Restore(const std::string& checkpoint) {
  ASSIGN_OR_RETURN(const auto source, Checkpoint::Open(checkpoint));
  return pipeline_->Restore(*source, RestoredState::kAll);
}

// That the host has no memory for the copy is no failure of the ranks.
absl::Status Worker::StartSave(const std::string& folder) {
  absl::StatusOr<std::vector<RankSnapshot>> snapshot = pipeline_->Snapshot();
  if (pipeline_->failed()->Done()) return pipeline_->failed()->status();
  saver_.Start(std::move(snapshot), folder);
  return absl::OkStatus();
}

}  // namespace sluice
