// sluice train JOB
#include <atomic>
#include <cstdio>
#include <memory>
#include <vector>

#include "base/status.h"
#include "base/world.h"
#include "runtime/data/dataset.h"
#include "runtime/planner/plan.h"
#include "runtime/trainer/trainer.h"
#include "spdlog/spdlog.h"
#include "tools/job_verb.h"
#include "tools/training.h"
#include "tools/verbs.h"
#include "tools/version.h"

namespace sluice::tools {
namespace {

struct Arguments {
  JobArguments job;
  ResumeArguments resume;
  StatusPageArguments page;
  bool quiet = false;
};

absl::Status RunTrain(const Arguments& arguments) {
  ASSIGN_OR_RETURN(const JobConfig job, LoadJob(arguments.job));
  RETURN_IF_ERROR(CheckDevice(job));
  const bool quiet = arguments.quiet || job.output.quiet;
  RETURN_IF_ERROR(CheckOutputs(job));
  ASSIGN_OR_RETURN(const Dataset dataset, Dataset::Open(job.data, job.graph.vocabulary, job.training.sequence));
  ASSIGN_OR_RETURN(const Plan plan, MakePlan(job));
  LogProgram(plan.training);
  if (!quiet) std::printf("%s\n", ToText(plan).c_str());
  if (!quiet) spdlog::info("training {}", DescribeDevices(job));
  if (!quiet && job.layout.device == DeviceKind::kCuda) std::printf("%s\n\n", DescribeDevices(job).c_str());
  const std::vector<int> processors = Processors();
  WarnAbout(plan, job.layout.grid().ranks(), static_cast<int>(processors.size()));
  const std::atomic<bool>* const stop = CatchInterrupts(kStoppingAfterThisStep);
  const auto world = NewRealWorld();
  ASSIGN_OR_RETURN(const TrainReport report, Train(world.get(), plan, dataset,
                                                   {.progress = ProgressMode(quiet), .processors = processors,
                                                    .status_bind = arguments.page.bind,
                                                    .status_port = arguments.page.port,
                                                    .program = kProgram,
                                                    .resume = ResumeFrom(arguments.resume),
                                                    .resume_changes = ChangesOf(arguments.resume),
                                                    .stop = stop}));
  if (!quiet) std::printf("%s", ToText(report).c_str());
  return NotSaved(report);
}

}  // namespace

Run AddTrain(CLI::App& verb) {
  auto arguments = std::make_shared<Arguments>();
  AddJobArguments(verb, &arguments->job);
  AddResumeArguments(verb, &arguments->resume);
  AddStatusPageArguments(verb, &arguments->page);
  verb.add_flag("--quiet", arguments->quiet, "print nothing but warnings and errors");
  return [arguments] { return RunTrain(*arguments); };
}

}  // namespace sluice::tools
