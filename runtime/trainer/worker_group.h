// All ranks of a job, in this process and in others: what the training loop gives its commands to. Process 0 drives; the
// others serve its commands, in order, and answer with what their ranks know.
//
// Threads: one caller. Everything given to Create outlives it. Errors: the first failure of any rank of any process ends
// all of them and is returned, as its cause, by this and every later call.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/work.pb.h"
#include "runtime/control/control_plane.h"
#include "runtime/trainer/worker.h"

namespace sluice {

// Carries failures both ways between a process's ranks and the control plane, and tells it whether anything here moves,
// while it lives.
class FailureBridge {
 public:
  // Both outlive it.
  FailureBridge(World* world, Pipeline* pipeline, ControlPlane* control);
  ~FailureBridge();

 private:
  World* const world_;
  ControlPlane* const control_;
  const Ref<Signal> closing_ = MakeRef<Signal>();
  EventRef task_;
};

class WorkerGroup {
 public:
  // `control`: of a job of several processes, joined as process 0; null: all ranks are here.
  static absl::StatusOr<std::unique_ptr<WorkerGroup>> Create(World* world, const Plan& plan, const Dataset& dataset,
                                                             const PipelineOptions& options, ControlPlane* control,
                                                             int processes);
  ~WorkerGroup();

  // As Pipeline's, for all ranks of the job.
  void StartStep(const StepCommand& command);
  absl::StatusOr<TrainingOutcome> FinishStep();
  size_t steps_running() const { return worker_->steps_running(); }
  // The loss sum of each micro-batch of a batch of held-out text, which is then worker().evaluation_batch().
  absl::StatusOr<std::vector<float>> Evaluate(int64_t index, int64_t batches_max);
  absl::StatusOr<std::vector<float>> Logits(absl::Span<const int32_t> tokens);
  // NOT_FOUND: no rank has it.
  absl::StatusOr<std::vector<float>> ReadParameter(const std::string& name, int replica = 0);

  // All ranks go on from a checkpoint: parameters, m and v. Its folder is seen by all processes.
  absl::Status Restore(const std::string& checkpoint);
  // Begins to write the state of the job into a folder that all processes see, in the background; only the optimizer of
  // the next step waits, until it has been copied. REQUIRES: no step is running; what came of the last one was taken.
  absl::Status StartSave(const std::string& folder);
  // What came of it, once, when all processes have told so, which they do with their answers to other commands. Errors:
  // of writing, the first; the job is well.
  std::optional<absl::StatusOr<SavedShards>> TakeSaved();
  // Waits until TakeSaved() has it.
  absl::Status FinishSave();

  // INTERNAL: replicas hold different parameters; names the tensor and the ranks.
  absl::Status CheckReplicas();

  // Another process was asked to stop (ServeCommands).
  bool stop_asked() const { return stop_asked_; }

  const Worker& worker() const { return *worker_; }
  // By world rank, as of the last outcome.
  const std::vector<RankMemory>& memory() const { return memory_; }
  // Of the ranks here (Pipeline::FailureReport).
  std::string FailureReport() const { return worker_->pipeline().FailureReport(); }

  // Tells the other processes that the work is done, and waits until all have left. Without it they end with an error.
  absl::Status Finish();

 private:
  WorkerGroup(World* world, const Plan& plan, ControlPlane* control, int processes);
  void Tell(const proto::Command& command);
  // One of each of the other processes, in any order.
  absl::StatusOr<std::vector<proto::Answer>> Answers();
  absl::StatusOr<std::vector<RankOutcome>> WithOthers(absl::StatusOr<std::vector<RankOutcome>> here);
  void AddSaved(absl::StatusOr<SavedShards> saved);
  // The job's first cause, if it has one; else `status`.
  absl::Status Cause(absl::Status status) const;

  World* const world_;
  const Plan& plan_;
  ControlPlane* const control_;
  const int processes_;
  std::unique_ptr<Worker> worker_;
  std::unique_ptr<FailureBridge> bridge_;
  std::deque<Nanoseconds> step_began_;  // of the steps that run
  std::vector<RankMemory> memory_;
  absl::Status told_;  // the first broadcast that failed
  bool stop_asked_ = false;
  // What was started and has not been taken: what has come so far, and how many processes have not told.
  std::optional<absl::StatusOr<SavedShards>> saved_;
  int saving_ = 0;
};

// What the other processes do until process 0 says that the work is done, or the job ends with an error. Once `stop` (may
// be null) is set, process 0 is asked to stop training.
absl::Status ServeCommands(World* world, Worker* worker, ControlPlane* control, const std::atomic<bool>* stop);

}  // namespace sluice
