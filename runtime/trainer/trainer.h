// The training loop of a job: data in, steps through the pipeline, evaluation, metrics, trace, sample, report.
#pragma once

#include <atomic>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/world.h"
#include "runtime/data/dataset.h"
#include "runtime/planner/plan.h"
#include "runtime/trainer/progress.h"
#include "runtime/trainer/report.h"
#include "runtime/trainer/worker_group.h"

namespace sluice {

inline constexpr char kResumeAuto[] = "auto";
// Whether a run may go on from another training: other data, batch, optimizer, ... (run_facts.h).
enum class ResumeChanges : uint8_t { kRefused, kAllowed };

struct TrainOptions {
  std::FILE* out = stdout;  // progress
  ProgressPrinter::Mode progress = ProgressPrinter::Mode::kPlain;
  std::vector<int> processors;  // that the ranks' threads may be pinned to
  GpuShare gpu_share;
  std::function<void(const std::string& text)> on_gpus;  // PipelineOptions::on_gpus
  // Of a job of several processes, of which this is process 0: the ranks here, how they reach the others, and the control
  // plane, joined. Left out: all ranks are here.
  std::vector<WorldRank> ranks;
  OpenTransport open_transport;
  std::function<absl::Status()> connect_transport;
  ControlPlane* control = nullptr;
  int processes = 1;
  // Where the status page listens; a negative port: there is none.
  std::string status_bind = "127.0.0.1";
  int status_port = -1;
  std::string program;  // its name and version, which a checkpoint names
  // What to go on from: a checkpoint, a folder of them (the newest), or kResumeAuto: the newest in the job's folder, from
  // the beginning if there is none. Empty: from the beginning.
  std::string resume;
  ResumeChanges resume_changes = ResumeChanges::kRefused;
  // Set by someone else: training ends after the step that is running, with a report as usual. Null: never.
  const std::atomic<bool>* stop = nullptr;
  // For tests: gets the loss of each step, nats per valid target.
  std::vector<double>* losses = nullptr;
};

// Errors: what made a rank fail; what is wrong with the checkpoint to go on from; FAILED_PRECONDITION after too many steps in a row whose gradient isn't finite. A file that can't
// be written (metrics, trace, a checkpoint) is a warning in the log and training goes on.
absl::StatusOr<TrainReport> Train(World* world, const Plan& plan, const Dataset& dataset, const TrainOptions& options);

// The part of a process other than 0: its ranks do what process 0 says, until that is done.
absl::Status ServeTraining(World* world, const Plan& plan, const Dataset& dataset, const TrainOptions& options);

}  // namespace sluice
