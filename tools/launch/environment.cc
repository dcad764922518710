#include "tools/launch/environment.h"

#include <cstdint>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/status.h"
#include "tools/launch/slurm_lists.h"

namespace sluice::tools {
namespace {

constexpr int kPortMax = 65535;
constexpr int kMany = 1 << 20;  // processes of a job, at most

class Reader {
 public:
  explicit Reader(const EnvironmentVariable& variable) : variable_(variable) {}

  std::string Text(const char* name) const {
    const char* value = variable_(name);
    return value == nullptr ? "" : value;
  }
  bool Has(const char* name) const { return !Text(name).empty(); }

  absl::StatusOr<int> Number(const char* name, int lowest, int highest) const {
    const std::string text = Text(name);
    int number = 0;
    if (text.empty())
      return absl::InvalidArgumentError(
          absl::StrCat("a launcher has set variables in the environment, but not ", name));
    if (!absl::SimpleAtoi(text, &number) || number < lowest || number > highest) {
      return absl::InvalidArgumentError(
          absl::StrCat("the environment has ", name, "=", text, ": not a number from ", lowest, " to ", highest));
    }
    return number;
  }
  absl::StatusOr<int> NumberOr(int otherwise, const char* name, int lowest, int highest) const {
    if (!Has(name)) return otherwise;
    return Number(name, lowest, highest);
  }

 private:
  const EnvironmentVariable& variable_;
};

// How a launcher calls the four numbers that all of them give.
struct Names {
  const char* process;
  const char* processes;
  const char* local_process;
  const char* local_processes;
};
constexpr Names kTorchNames = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"};
constexpr Names kOpenMpiNames = {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
                                 "OMPI_COMM_WORLD_LOCAL_SIZE"};
constexpr Names kSlurmNames = {"SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", nullptr};

absl::Status Contradiction(const char* one, int one_value, const char* other, int other_value) {
  return absl::InvalidArgumentError(absl::StrCat("the environment has ", one, "=", one_value, ", which can't be with ",
                                                 other, "=", other_value, "; start all processes by one launcher"));
}

absl::StatusOr<ProcessPlace> ReadNumbers(const Reader& reader, const Names& names) {
  ProcessPlace place;
  ASSIGN_OR_RETURN(place.process, reader.Number(names.process, 0, kMany));
  ASSIGN_OR_RETURN(place.processes, reader.Number(names.processes, 1, kMany));
  ASSIGN_OR_RETURN(place.local_process, reader.NumberOr(0, names.local_process, 0, kMany));
  place.local_processes = place.local_process + 1;
  if (names.local_processes != nullptr) {
    ASSIGN_OR_RETURN(place.local_processes, reader.NumberOr(place.local_processes, names.local_processes, 1, kMany));
  }
  if (place.process >= place.processes) {
    return Contradiction(names.process, place.process, names.processes, place.processes);
  }
  if (place.local_process >= place.local_processes) {
    return Contradiction(names.local_process, place.local_process, names.local_processes, place.local_processes);
  }
  if (place.local_processes > place.processes) {
    const bool counted = names.local_processes != nullptr && reader.Has(names.local_processes);
    return counted ? Contradiction(names.local_processes, place.local_processes, names.processes, place.processes)
                   : Contradiction(names.local_process, place.local_process, names.processes, place.processes);
  }
  return place;
}

// Where nobody names a port, all processes derive one from what names their job, so that jobs seldom meet: below the
// ports that systems give out by themselves.
int PortOfJob(absl::string_view job) {
  uint32_t hash = 2166136261u;  // FNV-1a: the same on every host
  for (const char c : job) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return 20000 + static_cast<int>(hash % 10000);
}

// torchrun's agent serves its own store on MASTER_PORT while the processes run, and says so. The next port is as free
// as any; every process derives the same.
int BesideAgentStore(const Reader& reader, int port) {
  if (reader.Text("TORCHELASTIC_USE_AGENT_STORE") != "True" || port == 0) return port;
  return port < kPortMax ? port + 1 : port - 1;
}

absl::StatusOr<ProcessPlace> FromTorch(const Reader& reader) {
  ASSIGN_OR_RETURN(ProcessPlace place, ReadNumbers(reader, kTorchNames));
  place.launcher = reader.Has("TORCHELASTIC_RUN_ID") ? "torchrun" : "RANK and WORLD_SIZE";
  if (place.processes == 1) return place;
  if (!reader.Has("MASTER_ADDR")) {
    return absl::InvalidArgumentError("RANK is set in the environment, but not MASTER_ADDR, the host of process 0");
  }
  // Process 0 of `sluice launch` chooses.
  const int lowest = place.process == 0 && reader.Has("SLUICE_PORT_FD") ? 0 : 1;
  ASSIGN_OR_RETURN(const int port, reader.Number("MASTER_PORT", lowest, kPortMax));
  place.port = BesideAgentStore(reader, port);
  return place;
}

absl::StatusOr<ProcessPlace> FromOpenMpi(const Reader& reader) {
  ASSIGN_OR_RETURN(ProcessPlace place, ReadNumbers(reader, kOpenMpiNames));
  place.launcher = "Open MPI";
  place.binds = true;
  place.port =
      PortOfJob(reader.Has("PMIX_NAMESPACE") ? reader.Text("PMIX_NAMESPACE") : reader.Text("OMPI_MCA_ess_base_jobid"));
  if (place.local_processes < place.processes && !reader.Has("MASTER_ADDR")) {
    return absl::InvalidArgumentError(
        "Open MPI doesn't tell on which host process 0 is, and MASTER_ADDR is not set in the environment; "
        "mpirun -x MASTER_ADDR=HOST says it");
  }
  return place;
}

// Process 0 of a step runs on the step's first node. srun's own address is only a guess: it may run on a login node.
absl::StatusOr<std::string> FirstSlurmHost(const Reader& reader) {
  for (const char* name : {"SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"}) {
    if (!reader.Has(name)) continue;
    absl::StatusOr<std::string> host = FirstOfNodeList(reader.Text(name));
    if (!host.ok()) return Annotate(host.status(), absl::StrCat("in the environment, ", name));
    return host;
  }
  if (reader.Has("SLURM_LAUNCH_NODE_IPADDR")) return reader.Text("SLURM_LAUNCH_NODE_IPADDR");
  return absl::InvalidArgumentError(
      "Slurm's SLURM_PROCID is set in the environment, but none of SLURM_STEP_NODELIST, SLURM_LAUNCH_NODE_IPADDR and "
      "MASTER_ADDR, which say where process 0 is");
}

absl::StatusOr<int> SlurmTasksOnNode(const Reader& reader, int otherwise) {
  constexpr char kTasks[] = "SLURM_STEP_TASKS_PER_NODE";
  if (!reader.Has(kTasks)) return otherwise;
  ASSIGN_OR_RETURN(const int node, reader.NumberOr(0, "SLURM_NODEID", 0, kMany));
  absl::StatusOr<int> tasks = CountOfNode(reader.Text(kTasks), node);
  if (!tasks.ok()) return Annotate(tasks.status(), absl::StrCat("in the environment, ", kTasks));
  return tasks;
}

absl::StatusOr<ProcessPlace> FromSlurm(const Reader& reader) {
  Names names = kSlurmNames;
  if (reader.Has("SLURM_STEP_NUM_TASKS")) names.processes = "SLURM_STEP_NUM_TASKS";  // of a job with smaller steps
  ASSIGN_OR_RETURN(ProcessPlace place, ReadNumbers(reader, names));
  place.launcher = "Slurm";
  place.binds = true;
  place.port = PortOfJob(absl::StrCat(reader.Text("SLURM_JOB_ID"), ".", reader.Text("SLURM_STEP_ID")));
  ASSIGN_OR_RETURN(const int tasks, SlurmTasksOnNode(reader, place.local_processes));
  if (place.local_process >= tasks || tasks > place.processes) {
    return Contradiction("SLURM_LOCALID", place.local_process, "SLURM_STEP_TASKS_PER_NODE", tasks);
  }
  place.local_processes = tasks;
  if (place.processes > 1 && !reader.Has("MASTER_ADDR")) {
    ASSIGN_OR_RETURN(place.host, FirstSlurmHost(reader));
  }
  return place;
}

// Batch scripts set these for programs that take their rank from Open MPI or Slurm.
absl::Status OverrideByTorch(const Reader& reader, ProcessPlace* place) {
  ASSIGN_OR_RETURN(place->port, reader.NumberOr(place->port, "MASTER_PORT", 1, kPortMax));
  ASSIGN_OR_RETURN(const int processes, reader.NumberOr(place->processes, "WORLD_SIZE", 1, kMany));
  if (processes == place->processes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the environment has WORLD_SIZE=", processes, ", but ",
                                                 place->launcher, " started ", place->processes, " processes"));
}

absl::StatusOr<ProcessPlace> FromLauncher(const Reader& reader) {
  if (reader.Has("RANK")) return FromTorch(reader);
  const bool open_mpi = reader.Has("OMPI_COMM_WORLD_RANK");
  if (!open_mpi && !reader.Has("SLURM_PROCID")) {
    return absl::InvalidArgumentError("WORLD_SIZE is set in the environment, but not RANK");
  }
  ASSIGN_OR_RETURN(ProcessPlace place, open_mpi ? FromOpenMpi(reader) : FromSlurm(reader));
  RETURN_IF_ERROR(OverrideByTorch(reader, &place));
  return place;
}

}  // namespace

absl::StatusOr<std::optional<ProcessPlace>> PlaceFromEnvironment(const EnvironmentVariable& variable) {
  const Reader reader(variable);
  if (!reader.Has("RANK") && !reader.Has("WORLD_SIZE") && !reader.Has("OMPI_COMM_WORLD_RANK") &&
      !reader.Has("SLURM_PROCID")) {
    return std::nullopt;
  }
  ASSIGN_OR_RETURN(ProcessPlace place, FromLauncher(reader));
  if (reader.Has("MASTER_ADDR")) place.host = reader.Text("MASTER_ADDR");
  ASSIGN_OR_RETURN(place.port_file, reader.NumberOr(-1, "SLUICE_PORT_FD", 0, kMany));
  place.token = reader.Text("SLUICE_TOKEN");
  return place;
}

}  // namespace sluice::tools
