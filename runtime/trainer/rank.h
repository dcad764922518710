// One rank of a job in this process: its device, stages and executor, built and used by a task of its own.
//
// Threads: the functions are called by the pipeline's caller; the task does the work between Start() and Finish().
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "base/world.h"
#include "kernels/device.h"
#include "runtime/executor/executor.h"
#include "runtime/executor/pipeline_abort.h"
#include "runtime/planner/plan.h"
#include "runtime/trainer/pipeline.h"
#include "runtime/trainer/rank_devices.h"
#include "runtime/trainer/state_copy.h"
#include "runtime/transport/in_process.h"
#include "runtime/transport/peer_hub.h"
#include "stages/layer_stage.h"

namespace sluice {

// What all ranks of a job in this process share. Outlives the ranks.
struct PipelineShared {
  World* world = nullptr;
  const Plan* plan = nullptr;
  PipelineOptions options;
  std::vector<Program> programs;  // training, evaluation, one micro-batch forward
  std::vector<WorldRank> ranks;   // in this process
  PipelineLayout layout;          // of these programs, for replica 0 and shard 0
  std::unique_ptr<PipelineAbort> abort;
  RankDevices devices;
  // Where all ranks are here, one of them: CPU ranks exchange their slots, GPUs copy.
  std::unique_ptr<InProcessHub> hub;
  std::unique_ptr<PeerHub> peer_hub;
};

class Rank {
 public:
  Rank(const PipelineShared* shared, WorldRank rank);
  ~Rank();

  // What the task calls on the executor (or on the stages, between steps).
  using Work = std::function<absl::Status(Rank& rank)>;
  // Gives the task a piece of work, after those it has been given before.
  void Start(Work work);
  // Waits for the end of the oldest piece that has not been finished. REQUIRES: there is one.
  absl::Status Finish();
  // Ends the task, which takes executor and stages down. The device lives on until the rank dies: slots travel.
  void Close();

  WorldRank rank() const { return rank_; }
  const GridPlace& place() const { return place_; }
  // Its replica's share of a step's micro-batches, of which there are as many for each replica.
  absl::Span<const MicroBatchInfo> ShareOf(absl::Span<const MicroBatchInfo> micro_batches) const;
  Executor& executor() { return *executor_; }
  Stream& stream() { return *stream_; }
  absl::Span<LayerStage* const> stages() const { return layer_stages_; }
  // Begins to copy what this rank is to save. REQUIRES: as StateCopy::Begin().
  absl::Status BeginSnapshot();
  RankSnapshot snapshot() const { return state_copy_->snapshot(rank_); }
  // StepInput::state_read of the next step.
  EventRef TakeStateRead() { return std::exchange(state_read_, nullptr); }
  // The results of the last two pieces of work, which the next but one takes over.
  void Keep(const StepResult& result, size_t place);
  RankOutcome OutcomeAt(size_t place) const;
  RankMemory memory() const;
  // Of its process's messages. REQUIRES: set up, and not closed.
  int64_t bytes_moved() const { return transport_->bytes_moved(); }
  std::string FlightRecord() const;

 private:
  void Run();
  absl::Status SetUp();
  absl::Status OpenTransport();
  absl::Status MakeStages(std::vector<std::unique_ptr<Stage>>* stages);
  RankModelOptions ModelOptions() const;
  Device* device() const { return wrapped_device_ ? wrapped_device_.get() : device_.get(); }
  void TakeDown();

  const PipelineShared* const shared_;
  const WorldRank rank_;
  const GridPlace place_;
  PipelineLayout layout_;

  // The task's. The devices go last.
  std::unique_ptr<Device> device_;
  std::unique_ptr<Device> wrapped_device_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<RankModel> model_;
  std::vector<LayerStage*> layer_stages_;
  std::unique_ptr<StateCopy> state_copy_;  // with the first snapshot
  EventRef state_read_;                    // of a snapshot that no step has waited for yet
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<TensorGroup> shards_;  // absent: there is one
  std::unique_ptr<Executor> executor_;
  absl::Status set_up_;
  std::array<RankOutcome, 2> results_;

  mutable std::mutex mutex_;
  struct Piece {
    Work work;  // empty: the end
    Ref<Signal> finished;
  };
  std::deque<Piece> pieces_;          // not yet taken by the task
  Ref<Signal> started_;               // there is one
  std::deque<EventRef> unfinished_;   // the caller's: ends of pieces, oldest first
  EventRef task_;
};

}  // namespace sluice
