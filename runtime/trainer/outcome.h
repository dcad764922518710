// What came of a step: what each rank knows of it, and all of them put together.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/ids.h"
#include "base/time.h"
#include "kernels/operations.h"
#include "runtime/planner/plan.h"
#include "runtime/trainer/report.h"
#include "scheduler/timeline.h"

namespace sluice {

// Plain values; they cross processes.
struct RankOutcome {
  WorldRank rank;
  std::vector<float> losses;  // of its replica's micro-batches, where the rank ends in the loss; else empty
  StepControl control;
  std::vector<Span> spans;  // in World time; the span's rank is the pipeline rank
  RankMemory memory;
};

struct TrainingOutcome {
  std::vector<float> loss_sums;  // of each micro-batch's valid targets, of all replicas
  StepControl control;
  Nanoseconds began = 0;  // in World time; that of the timeline counts from here
  Timeline timeline;      // a row for each world rank
};

// A parameter's values by shard, of those that are known here (PartOf).
using ShardValues = std::map<int, std::vector<float>>;
// The complete tensor of that name. NOT_FOUND: no layer has it, or no shard of it is there. INVALID_ARGUMENT: some are
// missing.
absl::StatusOr<std::vector<float>> CompleteParameter(const Plan& plan, const std::string& name,
                                                     const ShardValues& shards);

// Of one rank's part of a tensor.
struct TensorHash {
  WorldRank rank;
  std::string tensor;
  uint64_t hash = 0;
};
// Replicas hold the same parameters, bit for bit. INTERNAL names the first tensor and the ranks that differ.
absl::Status CompareReplicas(const RankGrid& grid, const std::vector<TensorHash>& hashes);

// REQUIRES of both: the outcomes of all ranks of the grid, in any order.
// The loss sum of each micro-batch of all replicas, each from the rank that holds the last stage of the copy that worked
// on it.
std::vector<float> LossSums(const Plan& plan, const std::vector<RankOutcome>& ranks);
// `began`: when the step was started; one that was started while the step before still ran begins with its first work.
// In the timeline a send begins no later than its receive, although each is timed by its own process.
TrainingOutcome Assemble(const Plan& plan, const std::vector<RankOutcome>& ranks, Nanoseconds began);

}  // namespace sluice
