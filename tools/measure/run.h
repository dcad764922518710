// Steps of a job as the trainer runs them, with the clock beside them: what `sluice bench` and `sluice profile`
// measure.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/world.h"
#include "kernels/profiled_device.h"
#include "runtime/data/dataset.h"
#include "runtime/planner/plan.h"
#include "scheduler/timeline.h"
#include "stages/stage_layout.h"

namespace sluice::tools {

// Whether each operation is timed too. The records around them cost little; still, a profiled step is not one to quote.
enum class Profiling { kOff, kOn };

struct RunOptions {
  int steps = 10;  // measured, after two to warm up
  Profiling profiling = Profiling::kOff;
  std::vector<int> processors;  // PipelineOptions::processors
  std::function<void(const std::string&)> algorithms_measured;  // likewise
};

struct StepRun {
  std::vector<double> step_ms;
  std::vector<Timeline> timelines;                     // of each step
  std::vector<std::vector<OperationTime>> operations;  // of each step, all ranks; empty: not profiled
  Nanoseconds first_step_ended = 0;                    // in the World's time; of the first one to warm up
};

absl::StatusOr<StepRun> RunSteps(World* world, const Plan& plan, const Dataset& dataset, const RunOptions& options);

// OperationTime::label of what was issued for a layer, and back.
int LabelOf(const LayerWork& work);
LayerWork WorkOf(int label);

}  // namespace sluice::tools
