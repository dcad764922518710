#include "tools/training.h"

#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "scheduler/schedule.h"
#include "spdlog/spdlog.h"
#include "tools/job_verb.h"

namespace sluice::tools {
namespace {

std::atomic<bool> stop_asked{false};
static_assert(std::atomic<bool>::is_always_lock_free);

const char* stop_message = nullptr;

void OnInterrupt(int) {
  if (stop_asked.exchange(true)) _exit(130);
  if (stop_message == nullptr) return;
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, stop_message, std::strlen(stop_message));
}

// Whether writing `output` would write over `input`, or into it if it is a folder that is read.
bool WouldOverwrite(const std::string& output, const std::string& input) {
  namespace fs = std::filesystem;
  std::error_code error;
  if (fs::equivalent(output, input, error)) return true;
  return fs::is_directory(input, error) && fs::equivalent(fs::path(output).parent_path(), input, error);
}

}  // namespace

void AddStatusPageArguments(CLI::App& verb, StatusPageArguments* arguments) {
  verb.add_option("--status-port", arguments->port,
                  "serve a status page for browsers and /metrics for Prometheus on this port; 0: any free one")
      ->check(CLI::Range(0, 65535));
  verb.add_option("--status-bind", arguments->bind, "the address it listens on; it asks nobody who they are");
}

void AddResumeArguments(CLI::App& verb, ResumeArguments* arguments) {
  verb.add_option("--resume", arguments->resume,
                  "go on from a checkpoint: its folder, a folder of several (the newest), or auto: the newest in the job's "
                  "checkpoint.folder, or from the beginning if there is none")
      ->type_name("auto|PATH");
  verb.add_flag("--resume-changed", arguments->changed,
                "go on although what makes it another training is changed: data, batch, seed, optimizer ...");
}

std::string ResumeFrom(const ResumeArguments& arguments) {
  const bool is_path = !arguments.resume.empty() && arguments.resume != kResumeAuto;
  return is_path ? UserPath(arguments.resume) : arguments.resume;
}

ResumeChanges ChangesOf(const ResumeArguments& arguments) {
  return arguments.changed ? ResumeChanges::kAllowed : ResumeChanges::kRefused;
}

absl::Status NotSaved(const TrainReport& report) {
  if (report.not_saved.ok()) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("the end of the run is not saved: ", report.not_saved.message()));
}

ProgressPrinter::Mode ProgressMode(bool quiet) {
  if (quiet) return ProgressPrinter::Mode::kQuiet;
  return isatty(STDOUT_FILENO) ? ProgressPrinter::Mode::kTerminal : ProgressPrinter::Mode::kPlain;
}

absl::Status CheckOutputs(const JobConfig& job) {
  std::vector<std::string> inputs{job.file, job.data.text, job.model.graph, job.model.from, job.schedule.file};
  inputs.insert(inputs.end(), job.data.tokens.begin(), job.data.tokens.end());
  for (const auto& [field, output] : {std::pair("output.metrics", job.output.metrics),
                                      {"output.trace", job.output.trace},
                                      {"checkpoint.folder", job.checkpoint.folder}}) {
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

void WarnAbout(const Plan& plan, int ranks, int processors) {
  const JobConfig& job = plan.job;
  if (!plan.report.weight_gradient_order.empty()) {
    spdlog::warn("{}: {}; the numbers are not those of other schedules", job.schedule.title(),
                 plan.report.weight_gradient_order);
  }
  if (ranks * job.layout.threads_per_rank > processors) {
    spdlog::warn("{} ranks of {} threads share {} processors: they take turns", ranks, job.layout.threads_per_rank,
                 processors);
  }
}

void LogProgram(const Program& program) {
  if (!spdlog::should_log(spdlog::level::debug)) return;
  for (size_t rank = 0; rank < program.ranks.size(); ++rank) {
    std::string actions = ToText({program.ranks[rank]});
    actions.pop_back();  // the end of its line
    spdlog::debug("rank {} runs {} actions: {}", rank, program.ranks[rank].size(), actions);
  }
}

const std::atomic<bool>* CatchInterrupts(const char* message) {
  stop_message = message;
  struct sigaction action = {};
  action.sa_handler = OnInterrupt;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGHUP, &action, nullptr);
  return &stop_asked;
}

}  // namespace sluice::tools
