// The plan: what every rank will hold and do, decided and proven before anything runs. A plain value.
//
// schedule -> slots and in-flight counts -> bytes of every possible stage -> partition -> lowering -> proof ->
// simulation. Slots come from the schedule and the micro-batches alone, so the partitioner knows the exact bytes of
// each stage that it tries and nothing has to be tried twice.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/device_description.h"
#include "runtime/config/job.h"
#include "runtime/executor/links.h"
#include "scheduler/lowering.h"
#include "scheduler/program.h"
#include "scheduler/simulate.h"
#include "scheduler/timeline.h"
#include "scheduler/verifier.h"
#include "stages/cost_model.h"
#include "stages/graph.h"
#include "stages/partition/partition.h"
#include "stages/stage_layout.h"
#include "stages/tensor_traffic.h"

namespace sluice {

struct StagePlan {
  StageId id;
  int copy = 0;  // of the model
  PipelineRank rank;
  size_t begin = 0, end = 0;  // nodes [begin, end) of the graph
  Recomputation recompute = Recomputation::kNone;
  int64_t parameters = 0;  // elements, of a shard; a tied weight in each stage that uses it
  int in_flight = 0;       // most micro-batches whose stash is held at once
  StageCosts costs;
  StageMemory memory;
};

// What a plan for generation has in place of training (generation_plan.h): the same placement and pools of slots.
struct GenerationPlan {
  int groups = 0;               // of sequences, in flight at once
  int64_t group_sequences = 0;  // at most
  int64_t context = 0;          // tokens of a sequence, at most
  int64_t prefill_tokens = 0;   // of a micro-batch of prompts, at most
  int rounds = 0;               // of decode
  Program prefill;              // forward only: prompts, in several micro-batches ...
  Program prefill_one;          // ... and in one
  Program decode;               // groups x rounds
};

struct Plan {
  JobConfig job;
  std::vector<StagePlan> stages;  // by Placement::Index: the stages of the first copy of the model come first
  // All proven, with the same placement and the same pools of slots.
  Program training;                                      // with post-validation: a step whose predecessor was guessed right
  std::optional<PostValidationPrograms> post_validation;  // absent: every step ends with a barrier
  Program evaluation;                   // forward only, as many micro-batches
  Program generation;                   // forward only, one micro-batch
  std::optional<GenerationPlan> generating;  // then there are no programs above
  std::vector<TiedUses> tied;           // weights that several layers use
  std::vector<StageBytes> stage_bytes;  // per stage: one slot of each pool, and what is fixed
  Costs costs;                          // of `training`, predicted
  Scenario scenario;                    // in which it was: where ranks stand in several hosts
  VerifyReport report;                  // of `training`: bytes per rank, as the devices will hold them
  Timeline predicted;                   // one step of `training`
  TimelineMetrics metrics;              // of `predicted`; step_ns from step to step in a row of them
  PartitionResult partition;
  std::string cut_method;   // "given in the job", "exact", "local search"
  std::string cost_source;  // where the times come from

  const Placement& placement() const { return generating ? generating->decode.placement : training.placement; }
};

struct PlanOptions {
  std::optional<DeviceDescription> device;  // of a rank; absent: threads_per_rank CPU cores
  // Times of one micro-batch per node of the graph, in place of those from `device`; empty: none were measured.
  std::vector<LayerTimes> measured;
  // Bytes of a weight as the device packs it; null: as the CPU does.
  std::function<int64_t(const LinearShape&)> packed_bytes;
};

// Errors: INVALID_ARGUMENT when cuts or schedule don't fit, RESOURCE_EXHAUSTED with the bytes of each rank when no cut
// keeps to the memory limit.
absl::StatusOr<Plan> MakePlan(const JobConfig& job, const PlanOptions& options = {});

// With which LayerStage::Create is to be called in a shard of a replica; the memory in the plan is that of these options
// for the first shard, which needs the most.
StageOptions StageOptionsOf(const Plan& plan, const StagePlan& stage, int replica = 0, int shard = 0);

// What a shard of the stage gets from the others in one step, of its replica's micro-batches.
Traffic ShardTraffic(const Plan& plan, const StagePlan& stage);

// What leaves each stage, for the executor.
std::vector<StageMessages> MessagesOf(const Plan& plan);
// PipelineLayout::smaller_messages, by the programs in the order that Pipeline gives them.
std::vector<std::vector<StageMessages>> SmallerMessagesOf(const Plan& plan);
const std::vector<TiedUses>& TiedUsesOf(const Plan& plan);
// Of the vector that travels with post-validation; 0 without.
int64_t NormBytesOf(const Plan& plan);

// For people: stages, parameters, memory per rank by kind, predicted step time and bubble, the pipeline as a chart at
// most `columns` wide.
std::string ToText(const Plan& plan, int columns = 100);

}  // namespace sluice
