// What the stages of a model cost, given once for one way to cut it, and used for schedules that cut it otherwise.
// Plain values and pure functions; from here come the costs of the simulation, of the generators that follow costs, and
// of memory.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "scheduler/generators.h"
#include "scheduler/simulate.h"
#include "scheduler/verifier.h"

namespace sluice {

struct StageProfile {
  StageCosts costs;
  int64_t stash_bytes = 0;           // of one micro-batch, from F to W or B
  int64_t gradient_stash_bytes = 0;  // of one micro-batch, from I to W
  int64_t fixed_bytes = 0;           // parameters, gradients, optimizer
  friend bool operator==(const StageProfile&, const StageProfile&) = default;
};

struct CostProfile {
  std::vector<StageProfile> stages;
  int64_t transfer_latency_ns = 0;
  double transfer_bytes_per_second = 0;  // 0: unlimited
  int64_t collective_ns = 0;
};

// The same model in `stages` stages, each stage of `profile` taken as even inside. Sums stay exactly what they are.
// REQUIRES: at least one stage on both sides.
CostProfile Redivide(const CostProfile& profile, int stages);

Costs CostsOf(const CostProfile& profile);
std::vector<PassCosts> PassCostsOf(const CostProfile& profile);

// Errors: INVALID_ARGUMENT if a step of `micro_batches` takes longer than 64-bit nanoseconds can safely add up.
absl::Status CheckDuration(const CostProfile& profile, int64_t micro_batches);

}  // namespace sluice
