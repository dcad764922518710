// The ranks of a job in this process, all of them or those that its processes have been given: each a task that owns its
// device, stages and executor, and waits for commands. The caller's thread gives the commands of a step to all ranks at
// once and collects what came of it.
//
// Threads: one caller. Ownership: the world and the plan outlive the pipeline. Errors: the first failure of any rank ends
// all of them and is returned, as its cause, by this and every later call.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/world.h"
#include "kernels/device.h"
#include "kernels/transport.h"
#include "runtime/checkpoint/parameter_source.h"
#include "runtime/planner/plan.h"
#include "runtime/trainer/outcome.h"
#include "runtime/trainer/rank_devices.h"
#include "runtime/trainer/report.h"
#include "runtime/trainer/snapshot.h"
#include "scheduler/timeline.h"
#include "stages/stage.h"
#include "stages/stage_layout.h"

namespace sluice {

// Opens a rank's endpoint with what it takes part in (PeerHub::Open); the device is the rank's.
using OpenTransport = std::function<absl::StatusOr<std::unique_ptr<Transport>>(
    WorldRank rank, Device* device, const std::vector<ChannelSpec>& channels, const std::vector<GroupSpec>& groups)>;

struct PipelineOptions {
  // Which ranks are in this process, ascending, and how they reach the others; empty and null: all of them are here.
  std::vector<WorldRank> ranks;
  OpenTransport open_transport;
  std::function<absl::Status()> connect_transport;  // once all ranks here have opened theirs; may be null
  int threads_per_rank = 1;
  // The ranks here share these, as many for each as it has threads; too few: not pinned.
  std::vector<int> processors;
  GpuShare gpu_share;
  // Hears which rank has which GPU, before anything is made on one; null: nobody does.
  std::function<void(const std::string& text)> on_gpus;
  double watchdog_seconds = 60;
  std::function<uint64_t()> moves_elsewhere;  // Watchdog::moves_elsewhere
  // cuda::CudaDeviceOptions::measured of each GPU rank, on its thread; null: nothing is measured.
  std::function<void(const std::string& algorithms)> algorithms_measured;
  // Wraps a rank's device before anything is built on it (profiling); null: as it is.
  std::function<std::unique_ptr<Device>(Device* device, WorldRank rank)> wrap_device;
  // StageOptions::on_layer of the stages of each rank.
  std::function<void(WorldRank rank, const LayerWork* work)> on_layer;
  // TensorGroup::OnExchange of each rank.
  std::function<void(WorldRank rank, const EventRef& ready, const EventRef& exchanged)> on_exchange;
};

// One optimizer step, as all ranks need it. What the infos point to stays until its FinishStep().
struct TrainingStep {
  absl::Span<const MicroBatchInfo> micro_batches;  // M, of all replicas
  float learning_rate = 0;
  // From 1; with post-validation only that of a step with no unfinished one before it counts, the ranks count on.
  int64_t update = 1;
};

// Which of GenerationPlan's programs.
enum class GenerationPass : uint8_t { kPrefill, kPrefillOne, kDecode };

class Pipeline {
 public:
  static absl::StatusOr<std::unique_ptr<Pipeline>> Create(World* world, const Plan& plan, const PipelineOptions& options);
  ~Pipeline();

  // Starts a step on all ranks here and returns; the caller may prepare the next one. FinishStep() waits for the end of the
  // oldest. With post-validation one more step may be started before that, which a rank begins as soon as its own part of
  // the one before has ended.
  void StartStep(const TrainingStep& step);
  size_t steps_running() const;  // started and not finished
  // Of the ranks here.
  absl::StatusOr<std::vector<RankOutcome>> FinishRanksStep();
  // REQUIRES: all ranks are here.
  absl::StatusOr<TrainingOutcome> FinishStep();

  // What reads parameters reads validated ones: a guess that is still open is settled first. REQUIRES: no step is running.
  // Forward only: the losses of the ranks here. REQUIRES: at most as many micro-batches as a step has.
  absl::StatusOr<std::vector<RankOutcome>> EvaluateRanks(absl::Span<const MicroBatchInfo> micro_batches);
  // The loss sum of each micro-batch. REQUIRES: all ranks are here.
  absl::StatusOr<std::vector<float>> Evaluate(absl::Span<const MicroBatchInfo> micro_batches);
  // Forward only, one micro-batch, through the first replica: the logits [tokens, V] of the tokens that it names in
  // logits_of; empty if the rank that has them is elsewhere.
  absl::StatusOr<std::vector<float>> Logits(const MicroBatchInfo& micro_batch);

  // Of a plan for generation, in place of steps. How a sequence draws, and which tokens it has (LayerStage).
  absl::Status BeginSequence(int64_t sequence, const SamplingRules& rules, absl::Span<const uint32_t> seen);
  // Runs a program; what is drawn goes to `drawn`, [micro-batches, sequences of a group]. REQUIRES: the ranks of the last
  // stage are here.
  absl::Status Generate(GenerationPass pass, absl::Span<const MicroBatchInfo> micro_batches, absl::Span<int32_t> drawn);

  // Copies a replica's parts of a parameter out, by its global name: of the shards that have ranks here. For tests and for
  // saving.
  absl::StatusOr<ShardValues> ReadShards(const std::string& name, int replica = 0);
  // The complete tensor. NOT_FOUND: there is none of that name. REQUIRES: all ranks are here.
  absl::StatusOr<std::vector<float>> ReadParameter(const std::string& name, int replica = 0);

  // Begins to copy the model's state to the host, what each rank here is to save of it (LayerStage::OwnedState), and
  // returns; the next step may be started at once, only its optimizer waits. Host memory for it is taken by the first
  // call. REQUIRES of what the last one gave: it has been copied, and nobody reads it any more. RESOURCE_EXHAUSTED,
  // without failed(): the host has no memory for it.
  absl::StatusOr<std::vector<RankSnapshot>> Snapshot();
  // Fills the parameters of the ranks here from a source, with m and v or without. Errors: what doesn't fit the model,
  // and those of reading, which end the job.
  absl::Status Restore(const ParameterSource& source, RestoredState what);

  // Of each parameter of each rank here.
  absl::StatusOr<std::vector<TensorHash>> HashParameters();

  std::vector<RankMemory> memory() const;  // of the ranks here
  // After a failure, for a person: which rank stood before which action and waited for whom, and what each did last (the flight
  // recorders). Empty while nothing has failed.
  std::string FailureReport() const;

  // Changes while any rank here goes on or a message of theirs moves. Any thread.
  uint64_t moves() const;

  // Done, with its cause, when the ranks here have failed or have been told to end.
  const EventRef& failed() const;
  // Ends all ranks here, for a cause from elsewhere. Any thread.
  void Abort(const absl::Status& cause);

 private:
  Pipeline() = default;
  absl::Status Settle();
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sluice
