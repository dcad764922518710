// The training loop of a job in one process: data in, steps through the pipeline, evaluation, metrics, trace, sample, report.
#pragma once

#include <atomic>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/world.h"
#include "runtime/data/dataset.h"
#include "runtime/planner/plan.h"
#include "runtime/trainer/progress.h"
#include "runtime/trainer/report.h"

namespace sluice {

struct TrainOptions {
  std::FILE* out = stdout;  // progress
  ProgressPrinter::Mode progress = ProgressPrinter::Mode::kPlain;
  std::vector<int> processors;  // that the ranks' threads may be pinned to
  // Set by someone else: training ends after the step that is running, with a report as usual. Null: never.
  const std::atomic<bool>* stop = nullptr;
  // For tests: gets the loss of each step, nats per valid target.
  std::vector<double>* losses = nullptr;
};

// Errors: what made a rank fail; FAILED_PRECONDITION after too many steps in a row whose gradient isn't finite. A file that can't
// be written (metrics, trace) is a warning in the log and training goes on.
absl::StatusOr<TrainReport> Train(World* world, const Plan& plan, const Dataset& dataset, const TrainOptions& options);

}  // namespace sluice
