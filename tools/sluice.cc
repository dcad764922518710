// sluice: pipeline-parallel training of neural networks. One program, one verb per task; see tools/README.md.
#include <fcntl.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "spdlog/sinks/stdout_color_sinks.h"
#include "spdlog/spdlog.h"
#include "tools/verbs.h"
#include "tools/version.h"

namespace {

struct Verb {
  const char* name;
  const char* summary;
  sluice::tools::Run (*add)(CLI::App& verb);
};

constexpr Verb kVerbs[] = {
    {"train", "train a model as a job file says", sluice::tools::AddTrain},
    {"launch", "train a job in several processes, on this host or on several", sluice::tools::AddLaunch},
    {"worker", "be one process of a job of several; `sluice launch` starts them", sluice::tools::AddWorker},
    {"supervise", "run a job's processes on one host; `sluice launch --hosts` starts it there",
     sluice::tools::AddSupervise},
    {"plan", "print what a job would do: stages, memory, predicted step time", sluice::tools::AddPlan},
    {"devices", "list what this machine has to compute on, and why something is not used", sluice::tools::AddDevices},
    {"simulate", "time schedules and compare them: makespan, span, bubbles and their causes, memory, messages",
     sluice::tools::AddSimulate},
    {"visualize", "draw the timeline of a recorded trace or of a schedule", sluice::tools::AddVisualize},
    {"search", "find the best schedule for given costs and a memory cap", sluice::tools::AddSearch},
    {"profile", "say where a step's time goes, and measure the layers' costs for the partitioner",
     sluice::tools::AddProfile},
    {"evaluate", "say how well a model predicts texts: loss, perplexity, bits per byte", sluice::tools::AddEvaluate},
    {"tokenize", "turn text files into the files of token ids that training maps", sluice::tools::AddTokenize},
    {"checkpoint", "list, show, verify, compare and convert checkpoints", sluice::tools::AddCheckpoint},
    {"generate", "answer prompts with a trained model", sluice::tools::AddGenerate},
    {"bench", "time the steps of a job beside the floor of this machine", sluice::tools::AddBench},
};

// Progress and reports go to standard output, the log to standard error.
void StartLog(const std::string& level) {
  auto log = spdlog::stderr_color_mt("sluice");
  log->set_pattern("%^%l%$: %v");
  log->set_level(spdlog::level::from_str(level));
  spdlog::set_default_logger(std::move(log));
}

}  // namespace

// A descriptor that the caller closed would be given to the next file that is opened, and what is printed would go into
// it.
void KeepStandardFilesOpen() {
  for (int file = 0; file <= 2; ++file) {
    if (fcntl(file, F_GETFD) == -1 && open("/dev/null", file == 0 ? O_RDONLY : O_WRONLY) != file) std::abort();
  }
}

absl::Status RunVerb(const sluice::tools::Run& run) {
  try {
    absl::Status status = run();
    if (status.ok() && std::fflush(stdout) != 0) status = absl::ErrnoToStatus(errno, "cannot write to standard output");
    return status;
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        "out of memory: this machine can't hold what was asked for; make sizes smaller");
  }
}

int main(int argc, char** argv) {
  KeepStandardFilesOpen();
  CLI::App app{"Sluice: pipeline-parallel training of neural networks, from a laptop's CPU up."};
  app.require_subcommand(1);
  app.option_defaults()->always_capture_default();
  app.set_version_flag("--version", sluice::tools::kProgram);
  std::string level = "info";
  app.add_option("--log", level, "what to log: trace, debug (also the actions of each rank), info, warning, error, off")
      ->check(CLI::IsMember({"trace", "debug", "info", "warning", "error", "off"}));
  std::vector<std::pair<CLI::App*, sluice::tools::Run>> verbs;
  for (const Verb& verb : kVerbs) {
    CLI::App* subcommand = app.add_subcommand(verb.name, verb.summary)->fallthrough();
    verbs.emplace_back(subcommand, verb.add(*subcommand));
  }
  CLI11_PARSE(app, argc, argv);
  StartLog(level);
  for (auto& [subcommand, run] : verbs) {
    if (!subcommand->parsed()) continue;
    const absl::Status status = RunVerb(run);
    if (status.ok()) return 0;
    spdlog::default_logger()->flush();
    std::fflush(stdout);
    std::fprintf(stderr, "sluice: %s\n", std::string(status.message()).c_str());
    return sluice::tools::ExitCode(status);
  }
  return 0;
}
