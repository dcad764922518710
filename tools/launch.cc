// sluice launch JOB: a job of several processes, on this host or on several. sluice supervise: its part on each of
// these.
#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/status.h"
#include "base/world.h"
#include "runtime/checkpoint/store.h"
#include "spdlog/spdlog.h"
#include "tools/job_verb.h"
#include "tools/launch/host_job.h"
#include "tools/launch/remote_job.h"
#include "tools/launch/restarts.h"
#include "tools/training.h"
#include "tools/verbs.h"

namespace sluice::tools {
namespace {

struct Arguments {
  JobArguments job;
  int processes = 0;
  std::string hosts;
  // Nobody can be asked for a password; a connection that is gone is noticed.
  std::string ssh = "ssh -o BatchMode=yes -o ServerAliveInterval=5 -o ServerAliveCountMax=3";
  std::string interface;
  std::string heartbeat, join_timeout;
  ResumeArguments resume;
  StatusPageArguments page;
  double grace_seconds = 5;
  int max_restarts = 0;
  bool quiet = false;
};

std::string LogLevel() {
  const auto name = spdlog::level::to_string_view(spdlog::get_level());
  return std::string(name.data(), name.size());
}

std::vector<std::string> WorkerCommand(const Arguments& arguments, const std::string& program, const std::string& job) {
  std::vector<std::string> command = {program, "--log", LogLevel(), "worker", job};
  for (const std::string& override : arguments.job.overrides) command.insert(command.end(), {"--set", override});
  for (const auto& [option, value] : {std::pair("--device", arguments.job.device),
                                      {"--interface", arguments.interface},
                                      {"--heartbeat", arguments.heartbeat},
                                      {"--join-timeout", arguments.join_timeout},
                                      {"--resume", ResumeFrom(arguments.resume)}}) {
    if (!value.empty()) command.insert(command.end(), {option, value});
  }
  if (arguments.page.port >= 0) {
    command.insert(command.end(),
                   {"--status-port", absl::StrCat(arguments.page.port), "--status-bind", arguments.page.bind});
  }
  if (arguments.resume.changed) command.push_back("--resume-changed");
  if (arguments.quiet) command.push_back("--quiet");
  return command;
}

absl::StatusOr<RemoteJob> ReadRemoteJob(const Arguments& arguments, const std::string& program,
                                        const std::string& token) {
  const std::string path = UserPath(arguments.hosts);
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  if (!file) return absl::NotFoundError(absl::StrCat("--hosts: ", path, " can't be read"));
  const std::string job = UserPath(arguments.job.file);
  RemoteJob remote{.ssh = absl::StrSplit(arguments.ssh, ' ', absl::SkipEmpty()),
                   .serve = {program, "--log", LogLevel(), "supervise"},
                   .order = {.job = {.command = WorkerCommand(arguments, program, job), .token = token},
                             .directory = UserDirectory(),
                             .job_file = job,
                             .interface = arguments.interface}};
  if (remote.ssh.empty()) return absl::InvalidArgumentError("--ssh: no command");
  ASSIGN_OR_RETURN(remote.hosts, ParseHosts(text.str(), path));
  return remote;
}

absl::Status StatusOf(const absl::StatusOr<SupervisionResult>& result) {
  RETURN_IF_ERROR(result.status());
  if (result->code == 0) return absl::OkStatus();
  return WithExitCode(absl::AbortedError(result->cause), result->code);
}

// One attempt. A token of its own keeps whoever is left of the last one out.
absl::StatusOr<SupervisionResult> RunOnce(const World* world, const Arguments& arguments, const std::string& program) {
  ASSIGN_OR_RETURN(const std::string token, MakeToken());
  const SupervisorOptions options{.grace = static_cast<Nanoseconds>(arguments.grace_seconds * kSecond)};
  if (arguments.hosts.empty()) {
    const HostJob job{.command = WorkerCommand(arguments, program, arguments.job.file),
                      .count = arguments.processes,
                      .processes = arguments.processes,
                      .token = token};
    return RunOnHost(world, job, {.supervisor = options});
  }
  ASSIGN_OR_RETURN(const RemoteJob job, ReadRemoteJob(arguments, program, token));
  return RunOnHosts(world, job, options);
}

// Of the newest complete checkpoint in a folder; 0: there is none.
int64_t SavedStep(const std::string& folder) {
  const auto checkpoints = ListCheckpoints(folder);
  int64_t step = 0;
  if (!checkpoints.ok()) return step;
  for (const CheckpointEntry& checkpoint : *checkpoints) {
    if (checkpoint.manifest.ok()) step = std::max(step, checkpoint.step);
  }
  return step;
}

std::string Date() {
  const std::time_t now = std::time(nullptr);
  std::tm parts = {};
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", localtime_r(&now, &parts));
  return text;
}

absl::StatusOr<std::string> FolderForRestarts(const Arguments& arguments) {
  if (arguments.max_restarts == 0) return "";
  // As one of several processes: nobody here looks for GPUs.
  ASSIGN_OR_RETURN(const JobConfig job, LoadJob(arguments.job, ProfileFile::kRead, {.processes = 2}));
  const std::string& folder = job.checkpoint.folder;
  if (folder.empty()) {
    return absl::InvalidArgumentError("--max-restarts goes on from checkpoints: give the job a checkpoint.folder");
  }
  if (arguments.resume.resume.empty() && SavedStep(folder) > 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        folder, " has a checkpoint of step ", SavedStep(folder),
        ": go on from it (--resume auto), give this run another folder, or remove the checkpoints"));
  }
  return folder;
}

absl::Status RunLaunch(Arguments arguments) {
  const auto world = NewRealWorld();
  ASSIGN_OR_RETURN(const std::string program, ThisProgram());
  ASSIGN_OR_RETURN(const std::string folder, FolderForRestarts(arguments));
  bool is_first = true;
  const RestartOptions options{.most = arguments.max_restarts,
                               .run =
                                   [&] {
                                     const bool restarts = !std::exchange(is_first, false);
                                     if (restarts && SavedStep(folder) > 0) arguments.resume.resume = kResumeAuto;
                                     return RunOnce(world.get(), arguments, program);
                                   },
                               .saved_step = [&] { return SavedStep(folder); },
                               .say = [](const std::string& line) { spdlog::warn("{}", line); },
                               .date = Date};
  return StatusOf(RunWithRestarts(world.get(), options));
}

absl::Status RunSupervise() {
  const auto world = NewRealWorld();
  const char* connection = std::getenv("SSH_CONNECTION");
  return StatusOf(ServeHost(world.get(), {}, connection == nullptr ? "" : connection));
}

}  // namespace

Run AddLaunch(CLI::App& verb) {
  auto arguments = std::make_shared<Arguments>();
  AddJobArguments(verb, &arguments->job);
  auto* where = verb.add_option_group("where", "one of");
  where->add_option("--processes", arguments->processes, "how many processes to start on this host")
      ->check(CLI::Range(1, 4096));
  auto* hosts =
      where->add_option("--hosts", arguments->hosts, "a file with a line \"HOST [processes=N]\" for each host")
          ->type_name("FILE");
  where->require_option(1);
  verb.add_option("--ssh", arguments->ssh, "the command that reaches a host")->needs(hosts);
  verb.add_option("--interface", arguments->interface,
                  "network interface or address by which processes reach each other; left out: the one that leads to "
                  "the other hosts")
      ->needs(hosts);
  verb.add_option("--heartbeat", arguments->heartbeat, "seconds after which a silent process is dead")
      ->check(CLI::Range(0.1, 1e6));
  verb.add_option("--join-timeout", arguments->join_timeout, "seconds until all processes must have joined")
      ->check(CLI::Range(0.1, 1e6));
  verb.add_option("--grace", arguments->grace_seconds,
                  "seconds that the others have to end by themselves when one has failed")
      ->check(CLI::Range(0.0, 1e6));
  verb.add_option("--max-restarts", arguments->max_restarts,
                  "start all again from the last complete checkpoint when a process fails, so often in a row without a new "
                  "checkpoint")
      ->check(CLI::Range(0, 1000000));
  AddResumeArguments(verb, &arguments->resume);
  AddStatusPageArguments(verb, &arguments->page);
  verb.add_flag("--quiet", arguments->quiet, "print nothing but warnings and errors");
  return [arguments] { return RunLaunch(*arguments); };
}

Run AddSupervise(CLI::App&) { return RunSupervise; }

}  // namespace sluice::tools
