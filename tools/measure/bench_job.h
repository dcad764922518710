// One benchmark of a job in this process: steps as they are, profiled steps, and this machine's rates.
#pragma once

#include "absl/status/statusor.h"
#include "base/world.h"
#include "runtime/data/dataset.h"
#include "runtime/planner/plan.h"
#include "tools/measure/result.h"
#include "tools/measure/run.h"

namespace sluice::tools {

enum class Floors { kMeasured, kLeftOut };

struct BenchOptions {
  int steps = 10;
  Floors floors = Floors::kMeasured;
};

struct Benchmark {
  BenchResult result;
  StepRun profiled;
  MachineRates rates;
  Costs measured_costs;  // of the plan's stages, from the steps as they are
};

// Processor, threads and job of a result that is still to be measured.
BenchResult EmptyResult(World* world, const Plan& plan);

absl::StatusOr<Benchmark> RunBenchmark(World* world, const Plan& plan, const Dataset& dataset,
                                       const BenchOptions& options);

}  // namespace sluice::tools
