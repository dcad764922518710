// One process of a job: the ranks that it hosts, and the data from which it derives what they work on. Every process knows
// job, plan and data, so a step is told by its number alone.
//
// Threads: one caller. The world, the plan and the dataset outlive it.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/world.h"
#include "runtime/data/batch.h"
#include "runtime/data/dataset.h"
#include "runtime/planner/plan.h"
#include "runtime/trainer/pipeline.h"
#include "runtime/trainer/shard_saver.h"

namespace sluice {

struct StepCommand {
  int64_t step = 0;  // from 0
  float learning_rate = 0;
  int64_t update = 1;  // TrainingStep::update
};

class Worker {
 public:
  static absl::StatusOr<std::unique_ptr<Worker>> Create(World* world, const Plan& plan, const Dataset& dataset,
                                                        const PipelineOptions& options);

  // As the pipeline's, for the ranks here. StartStep also prepares the step after, which is meant to come next.
  void StartStep(const StepCommand& command);
  absl::StatusOr<std::vector<RankOutcome>> FinishStep();
  size_t steps_running() const { return pipeline_->steps_running(); }
  // Batch number `index` of the held-out text (BatchMaker::Evaluation).
  absl::StatusOr<std::vector<RankOutcome>> Evaluate(int64_t index, int64_t batches_max);
  // What follows after `tokens`: logits [V]; empty if the rank that has them is elsewhere. REQUIRES: not empty, and no
  // longer than a row.
  absl::StatusOr<std::vector<float>> Logits(absl::Span<const int32_t> tokens);

  // Fills the ranks here with what a checkpoint has: parameters, m and v. Errors: it doesn't fit the model, or can't be
  // read.
  absl::Status Restore(const std::string& checkpoint);
  // Begins to write what the ranks here have to save into a checkpoint's folder; what comes of it is saver()'s. Errors:
  // the pipeline's.
  absl::Status StartSave(const std::string& folder);
  ShardSaver& saver() { return saver_; }

  // The step's rows; of the last three steps that were started or prepared.
  const Batch& BatchOf(int64_t step) const { return *step_batches_[step % step_batches_.size()]; }
  // Of the last Evaluate().
  const Batch& evaluation_batch() const { return evaluation_batch_; }
  const BatchMaker& batches() const { return batches_; }
  Pipeline& pipeline() { return *pipeline_; }

 private:
  Worker(World* world, const Plan& plan, const Dataset& dataset);
  // Makes the batch of a step unless it is there.
  const Batch& Prepare(int64_t step);

  const BatchShape shape_;
  const BatchMaker batches_;
  std::unique_ptr<Pipeline> pipeline_;
  std::array<std::unique_ptr<Batch>, 3> step_batches_;  // of two running steps and the next one
  std::array<int64_t, 3> prepared_ = {-1, -1, -1};      // which step's
  Batch evaluation_batch_;
  ShardSaver saver_;  // goes first: it reads what the ranks have copied
};

}  // namespace sluice
