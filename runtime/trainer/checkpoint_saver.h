// When a run saves its state, and what becomes of it: process 0's part. Shards are written by the processes whose they
// are (ShardSaver); when all have told that they are on the disk, the checkpoint is completed, in the background too.
//
// One at a time: a save that is due while the last one is still being written is skipped, with a warning. What can't be
// written is a warning, training goes on, and older checkpoints stay.
//
// Threads: the training loop's. What Open gets outlives it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/world.h"
#include "runtime/checkpoint/store.h"
#include "runtime/planner/plan.h"
#include "runtime/trainer/run_facts.h"
#include "runtime/trainer/worker_group.h"

namespace sluice {

// Where a run stands between two steps; all else follows from the job and the step's number.
struct RunPosition {
  int64_t step = 0;     // steps done
  int64_t updates = 0;  // of them, those that were not skipped
  int64_t skipped_steps = 0;
  int64_t nonfinite_in_a_row = 0;
  double last_loss = 0;  // of the last step
};

// What a checkpoint has beside the tensors.
RunPosition PositionOf(const proto::CheckpointManifest& manifest);
RunFacts FactsOf(const proto::CheckpointManifest& manifest);

class CheckpointSaver {
 public:
  // Takes the job's folder for a run that begins after `step` steps. Errors: as CheckpointStore's.
  static absl::StatusOr<std::unique_ptr<CheckpointSaver>> Open(World* world, const Plan& plan, RunFacts facts,
                                                               int64_t step);
  // Waits for what is being completed.
  ~CheckpointSaver();

  // Whether the state after so many steps is to be saved, before the end.
  bool DueAfter(int64_t step) const;
  // Begins to save, or skips it. REQUIRES: no step is running. Errors: the job's.
  absl::Status Save(const RunPosition& position, WorkerGroup* workers);
  // Goes on with what the workers have told; call it after each step.
  void Poll(WorkerGroup* workers);
  // Begins to save the end of the run unless that has been saved; waits for the one before. Errors: the job's.
  absl::Status SaveLast(const RunPosition& position, WorkerGroup* workers);
  // Waits for what is being saved. Errors: the job's.
  absl::Status Finish(WorkerGroup* workers);

  // The last checkpoint that was completed; empty: there is none.
  const std::string& path() const { return path_; }
  // Why there is none of the last save that has ended.
  const absl::Status& failure() const { return failure_; }

 private:
  CheckpointSaver(World* world, const Plan& plan, RunFacts facts, std::unique_ptr<CheckpointStore> store, int64_t step);
  bool busy() const { return !partial_.empty(); }
  absl::Status Begin(const RunPosition& position, WorkerGroup* workers);
  void Complete(absl::StatusOr<SavedShards> shards);
  void End(absl::StatusOr<std::string> path);
  proto::CheckpointManifest ManifestOf(const RunPosition& position) const;

  World* const world_;
  const JobConfig& job_;
  const RunFacts facts_;
  const std::unique_ptr<CheckpointStore> store_;
  Nanoseconds last_begun_ = 0;
  int64_t saved_step_ = 0;  // the last one that was begun, or where the run began
  std::string path_;
  absl::Status failure_;

  // Of the one that is being saved.
  std::string partial_;  // its folder; empty: there is none
  int skipped_ = 0;      // that were due while it was being saved
  proto::CheckpointManifest manifest_;
  EventRef completing_;  // null: its shards are being written
  absl::StatusOr<std::string> completed_;
};

}  // namespace sluice
