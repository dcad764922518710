// What a run ends with, for a person: where a step's time went, the bubble predicted and measured, memory, the trace's path.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/time.h"
#include "runtime/trainer/breakdown.h"

namespace sluice {

struct RankMemory {
  int64_t planned_bytes = 0;
  int64_t peak_bytes = 0;
  int64_t allocations = 0;  // of device memory, since the start
};

struct TrainReport {
  int64_t steps = 0;          // of this run
  int64_t resumed_after = 0;  // steps that it has gone on from
  int64_t skipped_steps = 0;
  int64_t revised_steps = 0;  // post-validation: guessed wrong, taken back and done again (or skipped)
  int64_t tokens = 0;
  Nanoseconds duration = 0;
  double last_loss = 0;       // of the last step, nats per target
  double held_out_loss = -1;  // negative: there is no held-out part
  int64_t held_out_targets = 0;

  std::vector<RankBreakdown> breakdown;  // of the median step; empty: none was measured
  std::vector<RankMemory> memory;
  std::vector<Straggler> stragglers;
  double measured_bubble = 0;            // of the median step
  double predicted_bubble = 0;           // of the simulation with measured costs
  Nanoseconds measured_step = 0;         // the median
  Nanoseconds predicted_step = 0;
  double planned_bubble = 0;  // before training, from analytic costs

  std::string sample;      // generated text, with its prompt
  std::string trace_path;  // empty: none was written
  std::string checkpoint;  // of the end; empty: none was written
  absl::Status not_saved;  // why there is none, where there should be
};

std::string ToText(const TrainReport& report);

}  // namespace sluice
