// What the verbs that train have in common: what is checked before, what is said, and how a person stops it.
#pragma once

#include <atomic>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "runtime/config/job.h"
#include "runtime/planner/plan.h"
#include "runtime/trainer/progress.h"
#include "runtime/trainer/report.h"
#include "runtime/trainer/trainer.h"

namespace sluice::tools {

// Where a browser finds the job's status page.
struct StatusPageArguments {
  int port = -1;  // negative: nowhere
  std::string bind = "127.0.0.1";
};
void AddStatusPageArguments(CLI::App& verb, StatusPageArguments* arguments);

// What a run goes on from.
struct ResumeArguments {
  std::string resume;    // TrainOptions::resume, a path as the user typed it
  bool changed = false;  // another training may go on from it
};
void AddResumeArguments(CLI::App& verb, ResumeArguments* arguments);
// TrainOptions::resume.
std::string ResumeFrom(const ResumeArguments& arguments);
ResumeChanges ChangesOf(const ResumeArguments& arguments);

// What a run ends with that is well but for its last checkpoint: DATA_LOSS, and why.
absl::Status NotSaved(const TrainReport& report);

ProgressPrinter::Mode ProgressMode(bool quiet);

// INVALID_ARGUMENT: the job would write over what it reads, or two outputs into one file.
absl::Status CheckOutputs(const JobConfig& job);

// Warnings about numbers that depend on the schedule, and about more threads than processors. `ranks`: in this process.
void WarnAbout(const Plan& plan, int ranks, int processors);
// The lists that the ranks will run, for whoever asks with --log debug.
void LogProgram(const Program& program);

// From now on the first signal to end sets what is returned, and the second one ends the program where it is. `message`
// is written to standard error at the first one; null: nothing.
const std::atomic<bool>* CatchInterrupts(const char* message);
inline constexpr char kStoppingAfterThisStep[] = "\nStopping after this step; once more to stop at once.\n";

}  // namespace sluice::tools
