// A whole job of affine stages: the real executor and in-process transport, one task a rank, on any World.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/world.h"
#include "runtime/executor/executor.h"
#include "scheduler/lowering.h"
#include "scheduler/program.h"
#include "scheduler/timeline.h"
#include "tests/sim/faults.h"

namespace sluice {

struct AffineJobOptions {
  Program training;
  // Those beside `training`, which is then a step whose predecessor was guessed right; absent: every step ends with a
  // barrier.
  std::optional<PostValidationPrograms> post_validation;
  float max_norm = 0;                           // above which gradients are scaled
  std::map<int, std::set<int>> poisoned_steps;  // per stage: in which its norm is not finite
  std::vector<Program> others;  // forward-only ones, each run once after the training steps, in this order
  bool zero1 = false;           // as `training` was lowered; it also says how many replicas there are
  int steps = 2;
  bool tied = false;
  bool fixed_slots = false;                // messages are copied; slots stay where they are
  std::vector<Nanoseconds> forward_costs;  // per stage; empty: none
  std::vector<Fault> faults;
  Watchdog watchdog;
  int compute_ahead = 4;
  int64_t memory_limit_bytes = 0;  // of every rank's device
  // Called by every rank before each training step.
  std::function<void(PipelineRank rank, int step)> before_step;
};

struct AffineJobResult {
  std::vector<absl::Status> statuses;             // per rank, replica by replica
  std::vector<std::vector<float>> losses;         // per finished step, then per other program; of all replicas
  std::vector<float> norms;                       // per finished step
  int replays = 0;                                // steps that ran rank 0's list of a wrong guess
  std::vector<uint32_t> logits;                   // after the last program
  std::vector<std::vector<uint32_t>> parameters;  // per stage: a, c, t; of one replica ...
  bool replicas_agree = true;                     // ... and the others have the same
  std::vector<std::vector<Span>> spans;           // per step, of all ranks of the first replica
  std::string report;                             // who waited for whom
  std::vector<std::string> flight_records;        // per rank
  std::vector<int64_t> allocations;               // of each rank's device, all along
};

// The micro-batches of a step, or one replica's share of them. Their arrays live for ever.
std::vector<MicroBatchInfo> AffineMicroBatches(int micro_batches, int step, int replica = 0);
inline float AffineLearningRate(int step) { return static_cast<float>(3 + step); }

AffineJobResult RunAffineJob(World* world, const AffineJobOptions& options);

}  // namespace sluice
