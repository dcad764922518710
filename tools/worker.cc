// sluice worker JOB: one process of a job of several.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/status.h"
#include "base/world.h"
#include "runtime/control/control_plane.h"
#include "runtime/data/dataset.h"
#include "runtime/planner/plan.h"
#include "runtime/trainer/fingerprints.h"
#include "runtime/trainer/trainer.h"
#include "runtime/transport/gloo_hub.h"
#include "runtime/transport/nccl_hub.h"
#include "spdlog/spdlog.h"
#include "tools/job_verb.h"
#include "tools/launch/address.h"
#include "tools/launch/environment.h"
#include "tools/launch/processors.h"
#include "tools/training.h"
#include "tools/verbs.h"
#include "tools/version.h"

namespace sluice::tools {
namespace {

struct Arguments {
  JobArguments job;
  std::string join;  // HOST:PORT
  int process = -1;
  int processes = 0;
  std::string token_file;
  std::string bind;
  std::string interface;
  std::vector<int> gpus;
  int channels_max = 0;
  double heartbeat_seconds = 10;
  double join_seconds = 120;
  ResumeArguments resume;
  StatusPageArguments page;
  bool quiet = false;
};

absl::StatusOr<std::string> ReadToken(const std::string& path) {
  std::ifstream file(path);
  std::string token;
  if (!std::getline(file, token) || token.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("--token-file: ", path, " has no token in its first line"));
  }
  return token;
}

absl::Status TakeAddress(const std::string& join, ProcessPlace* place) {
  const size_t colon = join.rfind(':');
  int port = 0;
  if (colon == std::string::npos || colon == 0 || !absl::SimpleAtoi(join.substr(colon + 1), &port) || port < 0 ||
      port > 65535) {
    return absl::InvalidArgumentError(absl::StrCat("--join: \"", join, "\" is not HOST:PORT"));
  }
  place->host = join.substr(0, colon);
  place->port = port;
  return absl::OkStatus();
}

// What the options say, and where they are silent the environment.
absl::StatusOr<ProcessPlace> PlaceOf(const Arguments& arguments) {
  ASSIGN_OR_RETURN(const std::optional<ProcessPlace> found, PlaceFromEnvironment([](const char* name) { return std::getenv(name); }));
  ProcessPlace place = found.value_or(ProcessPlace{.process = -1, .processes = 0});
  if (arguments.process >= 0) place.process = arguments.process;
  if (arguments.processes > 0) place.processes = arguments.processes;
  if (!arguments.join.empty()) RETURN_IF_ERROR(TakeAddress(arguments.join, &place));
  if (const char* token = std::getenv("SLUICE_TOKEN"); token != nullptr && place.token.empty()) place.token = token;
  if (!arguments.token_file.empty()) {
    ASSIGN_OR_RETURN(place.token, ReadToken(arguments.token_file));
  }
  if (place.process < 0 || place.processes < 1) {
    return absl::InvalidArgumentError(
        "which process of how many is this? `sluice launch` says it to its workers; by hand: --process I --processes N "
        "--join HOST:PORT --token-file FILE (or RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT as torchrun sets them)");
  }
  if (place.process >= place.processes) {
    return absl::InvalidArgumentError(absl::StrCat("process ", place.process, " of ", place.processes,
                                                   ": processes are counted from 0"));
  }
  if (place.token.empty()) {
    return absl::InvalidArgumentError(
        "a job of several processes needs a token that all of them know: SLUICE_TOKEN, or --token-file FILE");
  }
  return place;
}

absl::Status CheckDivides(const RankGrid& grid, int processes) {
  if (grid.ranks() % processes == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(processes, " processes can't share pp ", grid.pp(), " x dp ", grid.dp(),
                                                 " x tp ", grid.tp(), " = ", grid.ranks(),
                                                 " ranks equally: choose a divisor of ", grid.ranks()));
}

std::string HostName() {
  std::string name(256, '\0');
  if (gethostname(name.data(), name.size()) != 0) return "unknown host";
  return name.c_str();
}

// What two processes have in common if they reach each other over loopback: machine, and network namespace.
std::string HostIdentity() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string boot;
  std::getline(file, boot);
  std::error_code error;
  return absl::StrCat(HostName(), " ", boot, " ", std::filesystem::read_symlink("/proc/self/ns/net", error).string());
}

// Tells the launcher on which port process 0 listens.
void TellPort(int port, int file) {
  spdlog::debug("the control plane listens on port {}", port);
  if (file < 0) return;
  const std::string text = absl::StrCat(port, "\n");
  if (write(file, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    spdlog::warn("SLUICE_PORT_FD={}: the port can't be written there", file);
  }
  close(file);
}

// Where process 0 listens: at the name by which others call it, unless that leads home.
std::string BindOf(const Arguments& arguments, const ProcessPlace& place) {
  if (!arguments.bind.empty()) return arguments.bind;
  const bool may_have_others = place.local_processes < place.processes;
  if (place.process != 0 || !may_have_others || !IsNameOfLoopback(place.host)) return place.host;
  spdlog::warn("{} leads to loopback on this machine (/etc/hosts?), where no other host reaches process 0: it listens on all addresses; --bind ADDRESS chooses one",
               place.host);
  return "0.0.0.0";
}

Nanoseconds Duration(double seconds) { return static_cast<Nanoseconds>(seconds * kSecond); }

// One process that has met the others.
struct Joined {
  ProcessPlace place;
  std::vector<WorldRank> ranks;  // here
  std::unique_ptr<ControlPlane> control;
  std::unique_ptr<GlooHub> hub;   // between CPUs,
  std::unique_ptr<NcclHub> nccl;  // or between GPUs
};

absl::StatusOr<std::unique_ptr<ControlPlane>> JoinJob(World* world, const Arguments& arguments, const Joined& self,
                                                      const Plan& plan, const Dataset& dataset) {
  JoinOptions options{.process = self.place.process,
                      .processes = self.place.processes,
                      .world_size = plan.job.layout.grid().ranks(),
                      .ranks = self.ranks,
                      .fingerprints = FingerprintsOf(plan, dataset, kProgram),
                      .token = self.place.token,
                      .host_name = HostName(),
                      .host = self.place.host,
                      .port = static_cast<uint16_t>(self.place.port),
                      .bind = BindOf(arguments, self.place),
                      .on_listening = [file = self.place.port_file](int port) { TellPort(port, file); },
                      .on_note = [](const std::string& text) { spdlog::warn("control plane: {}", text); }};
  options.limits.heartbeat = Duration(arguments.heartbeat_seconds);
  options.limits.join = Duration(arguments.join_seconds);
  return ControlPlane::Join(world, std::move(options));
}

std::vector<int> ProcessOfRanks(const Joined& self, const RankGrid& grid) {
  std::vector<int> process_of;
  for (int rank = 0; rank < grid.ranks(); ++rank) {
    process_of.push_back(rank / (grid.ranks() / self.place.processes));
  }
  return process_of;
}

ExchangeBlobs ExchangeOver(ControlPlane* control) {
  return [control](const std::string& name, std::string mine) { return control->ExchangeBlobs(name, std::move(mine)); };
}

absl::StatusOr<std::unique_ptr<GlooHub>> MakeHub(World* world, const Arguments& arguments, const Joined& self,
                                                 const RankGrid& grid) {
  ControlPlane* const control = self.control.get();
  ASSIGN_OR_RETURN(const std::vector<std::string> hosts, control->ExchangeBlobs("host", HostIdentity()));
  GlooHubOptions options{.process = self.place.process,
                         .process_of = ProcessOfRanks(self, grid),
                         .interface = arguments.interface,
                         .one_host = std::set<std::string>(hosts.begin(), hosts.end()).size() == 1,
                         .exchange = ExchangeOver(control)};
  if (options.interface.empty() && !options.one_host) options.interface = AddressTowards(self.place.host);
  return std::make_unique<GlooHub>(world, std::move(options));
}

std::unique_ptr<NcclHub> MakeNcclHub(World* world, const Arguments& arguments, const Joined& self,
                                     const RankGrid& grid) {
  ControlPlane* const control = self.control.get();
  return std::make_unique<NcclHub>(
      world, NcclHubOptions{.process = self.place.process,
                            .process_of = ProcessOfRanks(self, grid),
                            .exchange = ExchangeOver(control),
                            .channels_max = arguments.channels_max,
                            .connect_limit = Duration(arguments.join_seconds),
                            .on_failure = [control](const absl::Status& cause) { control->Abort(cause); }});
}

// How the ranks here reach the others.
absl::Status ReachOthers(World* world, const Arguments& arguments, const JobConfig& job, Joined* self,
                         TrainOptions* options) {
  const RankGrid grid = job.layout.grid();
  if (job.layout.device == DeviceKind::kCuda) {
    self->nccl = MakeNcclHub(world, arguments, *self, grid);
    NcclHub* const hub = self->nccl.get();
    options->open_transport = [hub](WorldRank rank, Device* device, const auto& channels, const auto& groups) {
      return hub->Open(rank, device, channels, groups);
    };
    options->connect_transport = [hub] { return hub->Connect(); };
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(self->hub, MakeHub(world, arguments, *self, grid));
  GlooHub* const hub = self->hub.get();
  options->open_transport = [hub](WorldRank rank, Device*, const auto& channels, const auto& groups) {
    return hub->Open(rank, channels, groups);
  };
  options->connect_transport = [hub] { return hub->Connect(); };
  return absl::OkStatus();
}

absl::Status RunWorker(const Arguments& arguments) {
  const auto world = NewRealWorld();
  Joined self;
  ASSIGN_OR_RETURN(self.place, PlaceOf(arguments));
  const std::vector<int> processors =
      ProcessorsOf(self.place, Processors(), static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)));
  const ProcessShare share{.processes = self.place.processes, .processors = static_cast<int>(processors.size())};
  ASSIGN_OR_RETURN(const JobConfig job, LoadJob(arguments.job, ProfileFile::kRead, share));
  RETURN_IF_ERROR(CheckDevice(job));
  const RankGrid grid = job.layout.grid();
  RETURN_IF_ERROR(CheckDivides(grid, self.place.processes));
  const bool leads = self.place.process == 0, quiet = arguments.quiet || job.output.quiet || !leads;
  if (leads) RETURN_IF_ERROR(CheckOutputs(job));
  ASSIGN_OR_RETURN(const Dataset dataset, Dataset::Open(job.data, job.graph.vocabulary, job.training.sequence));
  ASSIGN_OR_RETURN(const Plan plan, MakePlan(job));
  if (!quiet) std::printf("%s\n", ToText(plan).c_str());
  const int here = grid.ranks() / self.place.processes;
  for (int i = 0; i < here; ++i) self.ranks.push_back(WorldRank(self.place.process * here + i));
  WarnAbout(plan, here, static_cast<int>(processors.size()));
  ASSIGN_OR_RETURN(self.control, JoinJob(world.get(), arguments, self, plan, dataset));
  TrainOptions options{
      .progress = ProgressMode(quiet),
      .processors = processors,
      .gpu_share = {.gpus = arguments.gpus,
                    .local_process = self.place.local_process,
                    .local_processes = self.place.local_processes},
      .on_gpus = [](const std::string& text) { spdlog::info("{}", text); },
      .ranks = self.ranks,
      .control = self.control.get(),
      .processes = self.place.processes,
      .status_bind = arguments.page.bind,
      .status_port = arguments.page.port,
      .program = kProgram,
      .resume = ResumeFrom(arguments.resume),
      .resume_changes = ChangesOf(arguments.resume),
      .stop = CatchInterrupts(leads ? kStoppingAfterThisStep : nullptr)};
  RETURN_IF_ERROR(ReachOthers(world.get(), arguments, job, &self, &options));
  if (!leads) return ServeTraining(world.get(), plan, dataset, options);
  ASSIGN_OR_RETURN(const TrainReport report, Train(world.get(), plan, dataset, options));
  if (!quiet) std::printf("%s", ToText(report).c_str());
  return NotSaved(report);
}

}  // namespace

Run AddWorker(CLI::App& verb) {
  auto arguments = std::make_shared<Arguments>();
  AddJobArguments(verb, &arguments->job);
  verb.add_option("--join", arguments->join, "where process 0 is reached")->type_name("HOST:PORT");
  verb.add_option("--process", arguments->process, "which process this is, from 0")->check(CLI::NonNegativeNumber);
  verb.add_option("--processes", arguments->processes, "how many there are")->check(CLI::PositiveNumber);
  verb.add_option("--token-file", arguments->token_file, "a file whose first line is the job's token")->type_name("FILE");
  verb.add_option("--bind", arguments->bind, "process 0: the address to listen on; left out: the host of --join");
  verb.add_option("--interface", arguments->interface,
                  "network interface or address for messages between processes; left out: loopback on one host");
  verb.add_option("--gpus", arguments->gpus, "the GPU of each rank here; left out: by its place on this host")
      ->delimiter(',')
      ->type_name("N,N...");
  verb.add_option("--nccl-channels", arguments->channels_max,
                  "multiprocessors that one transfer between GPUs takes at most; 0: as NCCL decides")
      ->check(CLI::Range(0, 64));
  verb.add_option("--heartbeat", arguments->heartbeat_seconds, "a process silent for so many seconds is dead")
      ->check(CLI::Range(0.1, 1e6));
  verb.add_option("--join-timeout", arguments->join_seconds, "seconds until all processes must have joined")
      ->check(CLI::Range(0.1, 1e6));
  AddResumeArguments(verb, &arguments->resume);
  AddStatusPageArguments(verb, &arguments->page);
  verb.add_flag("--quiet", arguments->quiet, "print nothing but warnings and errors");
  return [arguments] { return RunWorker(*arguments); };
}

}  // namespace sluice::tools
