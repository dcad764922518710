// sluice train JOB
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/world.h"
#include "runtime/data/dataset.h"
#include "runtime/planner/plan.h"
#include "runtime/trainer/trainer.h"
#include "spdlog/spdlog.h"
#include "tools/job_verb.h"
#include "tools/verbs.h"

namespace sluice::tools {
namespace {

std::atomic<bool> stop_asked{false};
static_assert(std::atomic<bool>::is_always_lock_free);

// The first signal lets the running step end; the second one ends the program where it is.
void OnInterrupt(int) {
  if (stop_asked.exchange(true)) _exit(130);
  constexpr char kMessage[] = "\nStopping after this step; once more to stop at once.\n";
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kMessage, sizeof(kMessage) - 1);
}

void CatchInterrupts() {
  struct sigaction action = {};
  action.sa_handler = OnInterrupt;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGHUP, &action, nullptr);
}

struct Arguments {
  JobArguments job;
  bool quiet = false;
};

ProgressPrinter::Mode ProgressMode(bool quiet) {
  if (quiet) return ProgressPrinter::Mode::kQuiet;
  return isatty(STDOUT_FILENO) ? ProgressPrinter::Mode::kTerminal : ProgressPrinter::Mode::kPlain;
}

// Whether writing `output` would write over `input`, or into it if it is a folder that is read.
bool WouldOverwrite(const std::string& output, const std::string& input) {
  namespace fs = std::filesystem;
  std::error_code error;
  if (fs::is_directory(input, error)) return fs::equivalent(fs::path(output).parent_path(), input, error);
  return fs::equivalent(output, input, error);
}

// Nothing that a job reads may be what it writes.
absl::Status CheckOutputs(const JobConfig& job) {
  std::vector<std::string> inputs{job.file, job.data.text, job.model.graph, job.schedule.file};
  inputs.insert(inputs.end(), job.data.tokens.begin(), job.data.tokens.end());
  for (const auto& [field, output] : {std::pair("output.metrics", job.output.metrics), {"output.trace", job.output.trace}}) {
    if (output.empty()) continue;
    for (const std::string& input : inputs) {
      if (!input.empty() && WouldOverwrite(output, input)) {
        return absl::InvalidArgumentError(
            absl::StrCat(field, ": ", output, " would be written over or into ", input, ", which the job reads; choose another path"));
      }
    }
  }
  if (!job.output.metrics.empty() && job.output.metrics == job.output.trace && job.output.trace.rfind("/dev/", 0) != 0) {
    return absl::InvalidArgumentError(absl::StrCat("output.metrics and output.trace are both ", job.output.trace));
  }
  return absl::OkStatus();
}

// The lists that the ranks will run, for whoever asks with --log debug.
void LogProgram(const Program& program) {
  if (!spdlog::should_log(spdlog::level::debug)) return;
  for (size_t rank = 0; rank < program.ranks.size(); ++rank) {
    std::string actions = ToText({program.ranks[rank]});
    actions.pop_back();  // the end of its line
    spdlog::debug("rank {} runs {} actions: {}", rank, program.ranks[rank].size(), actions);
  }
}

absl::Status RunTrain(const Arguments& arguments) {
  ASSIGN_OR_RETURN(const JobConfig job, LoadJob(arguments.job));
  const bool quiet = arguments.quiet || job.output.quiet;
  RETURN_IF_ERROR(CheckOutputs(job));
  ASSIGN_OR_RETURN(const Dataset dataset, Dataset::Open(job.data, job.graph.vocabulary, job.training.sequence));
  ASSIGN_OR_RETURN(const Plan plan, MakePlan(job));
  LogProgram(plan.training);
  if (!quiet) std::printf("%s\n", ToText(plan).c_str());
  const std::vector<int> processors = Processors();
  if (!plan.report.weight_gradient_order.empty()) {
    spdlog::warn("{}: {}; the numbers are not those of other schedules", job.schedule.title(),
                 plan.report.weight_gradient_order);
  }
  const int ranks = job.layout.grid().ranks();
  if (ranks * job.layout.threads_per_rank > static_cast<int>(processors.size())) {
    spdlog::warn("{} ranks of {} threads share {} processors: they take turns", ranks,
                 job.layout.threads_per_rank, processors.size());
  }
  CatchInterrupts();
  const auto world = NewRealWorld();
  ASSIGN_OR_RETURN(const TrainReport report, Train(world.get(), plan, dataset,
                                                   {.progress = ProgressMode(quiet), .processors = processors, .stop = &stop_asked}));
  if (!quiet) std::printf("%s", ToText(report).c_str());
  return absl::OkStatus();
}

}  // namespace

Run AddTrain(CLI::App& verb) {
  auto arguments = std::make_shared<Arguments>();
  AddJobArguments(verb, &arguments->job);
  verb.add_flag("--quiet", arguments->quiet, "print nothing but warnings and errors");
  return [arguments] { return RunTrain(*arguments); };
}

}  // namespace sluice::tools
