#include "runtime/trainer/resume.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status.h"
#include "runtime/checkpoint/store.h"
#include "runtime/trainer/checkpoint_saver.h"
#include "spdlog/spdlog.h"

namespace sluice {

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenCheckpointToResume(const std::string& resume,
                                                                   const std::string& folder) {
  if (resume.empty()) return nullptr;
  if (resume != kResumeAuto) return Checkpoint::Open(resume);
  if (folder.empty()) {
    return absl::InvalidArgumentError(
        "--resume auto looks in the job's checkpoint.folder, and the job has none; name a checkpoint, or give it one");
  }
  if (absl::IsNotFound(CheckpointAt(folder).status())) return nullptr;
  return Checkpoint::Open(folder);
}

absl::Status CheckResumes(const Checkpoint& checkpoint, const RunFacts& facts, const JobConfig& job,
                          ResumeChanges allowed) {
  const std::string& path = checkpoint.path();
  RETURN_IF_ERROR(Annotate(checkpoint.Check(job.graph), path));
  if (!checkpoint.HasMoments()) {
    return absl::FailedPreconditionError(
        absl::StrCat(path,
                     " has no optimizer state, so that no run can go on from it; a new one can begin with its "
                     "parameters: model { from: ... }"));
  }
  const RunChanges changes = Compare(FactsOf(checkpoint.manifest()), facts);
  for (const std::string& change : changes.rounding) {
    spdlog::info("{}: the same training, but the last bits of its numbers may differ", change);
  }
  if (!changes.training.empty() && allowed == ResumeChanges::kRefused) {
    return absl::FailedPreconditionError(absl::StrCat(
        path, " is of another training: ", absl::StrJoin(changes.training, "; "),
        ". Set it back (what a job leaves out may follow from other fields), or allow it with --resume-changed"));
  }
  for (const std::string& change : changes.training) spdlog::warn("{}: from here on it is another training", change);
  if (checkpoint.manifest().step() > job.training.steps) {
    spdlog::warn("{} has {} steps done; training.steps is {}: nothing is left to do", path,
                 checkpoint.manifest().step(), job.training.steps);
  }
  return absl::OkStatus();
}

}  // namespace sluice
