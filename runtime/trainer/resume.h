// From where a run goes on, and whether it may.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/config/job.h"
#include "runtime/trainer/run_facts.h"
#include "runtime/trainer/trainer.h"

namespace sluice {

// What TrainOptions::resume means; null: the run begins at the beginning. INVALID_ARGUMENT: kResumeAuto, but the job
// has no folder. Other errors: Checkpoint::Open's.
absl::StatusOr<std::unique_ptr<Checkpoint>> OpenCheckpointToResume(const std::string& resume,
                                                                   const std::string& folder);

// Says in the log what is different from the run that wrote the checkpoint, and whether it matters. Errors: it is of
// another model, or has no optimizer state. FAILED_PRECONDITION: what makes it another training has changed, and that
// is not allowed.
absl::Status CheckResumes(const Checkpoint& checkpoint, const RunFacts& facts, const JobConfig& job,
                          ResumeChanges changes);

}  // namespace sluice
