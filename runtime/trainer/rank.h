// One rank of a pipeline in this process: its device, stages and executor, built and used by a task of its own.
//
// Threads: the functions are called by the pipeline's caller; the task does the work between Start() and Finish().
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/world.h"
#include "kernels/device.h"
#include "runtime/executor/executor.h"
#include "runtime/executor/pipeline_abort.h"
#include "runtime/planner/plan.h"
#include "runtime/trainer/pipeline.h"
#include "runtime/transport/in_process.h"
#include "stages/layer_stage.h"

namespace sluice {

// What all ranks of a pipeline share. Outlives the ranks.
struct PipelineShared {
  World* world = nullptr;
  const Plan* plan = nullptr;
  PipelineOptions options;
  std::vector<Program> programs;  // training, evaluation, one micro-batch forward
  PipelineLayout layout;          // of these programs
  std::unique_ptr<PipelineAbort> abort;
  std::unique_ptr<InProcessHub> hub;
};

class Rank {
 public:
  Rank(const PipelineShared* shared, PipelineRank rank);
  ~Rank();

  // What the task calls on the executor (or on the stages, between steps).
  using Work = std::function<absl::Status(Rank& rank)>;
  // Gives the task its next piece of work. REQUIRES: the one before has been finished.
  void Start(Work work);
  // Waits for its end.
  absl::Status Finish();
  // Ends the task, which takes executor and stages down. The device lives on until the rank dies: slots travel.
  void Close();

  Executor& executor() { return *executor_; }
  Stream& stream() { return *stream_; }
  absl::Span<LayerStage* const> stages() const { return layer_stages_; }
  // The result of the last step; spans are moved to the step's own time by the caller.
  StepResult result;
  RankMemory memory() const;
  std::string FlightRecord() const;

 private:
  void Run();
  absl::Status SetUp();
  absl::Status MakeStages(std::vector<std::unique_ptr<Stage>>* stages);
  RankModelOptions ModelOptions() const;
  void TakeDown();

  const PipelineShared* const shared_;
  const PipelineRank rank_;

  // The task's. The devices go last.
  std::unique_ptr<Device> device_;
  std::unique_ptr<Device> wrapped_device_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<RankModel> model_;
  std::vector<LayerStage*> layer_stages_;
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<Executor> executor_;
  absl::Status set_up_;

  mutable std::mutex mutex_;
  Work work_;              // empty when started: the end
  Ref<Signal> started_;    // there is a next piece of work
  Ref<Signal> finished_;   // it is done
  EventRef task_;
};

}  // namespace sluice
