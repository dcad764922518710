// What a process learns about its place in a job from the environment that a launcher gave it: `sluice launch`,
// torchrun (and whatever else sets RANK and WORLD_SIZE), Open MPI's mpirun, Slurm's srun; docs/launching.md has the
// variables. Pure: the environment is handed in.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "absl/status/statusor.h"

namespace sluice::tools {

struct ProcessPlace {
  int process = 0;
  int processes = 1;
  // Where process 0 is reached. Port 0, only for process 0: any free one, to be written to port_file.
  std::string host = "127.0.0.1";
  int port = 0;
  std::string token;  // empty: SLUICE_TOKEN isn't set. Never to be printed
  // Among the processes on the same host.
  int local_process = 0;
  int local_processes = 1;
  bool binds = false;    // the launcher is one that may give each process its own processors (processors.h)
  int port_file = -1;    // the file descriptor SLUICE_PORT_FD; -1: not set
  std::string launcher;  // for messages; whose variables these are
};

// The value of an environment variable, or null.
using EnvironmentVariable = std::function<const char*(const char* name)>;

// RANK and its companions are asked first, then Open MPI's, then Slurm's: launchers are started by one another in that
// order, and the innermost knows. MASTER_ADDR and MASTER_PORT count with all of them. An empty variable isn't set.
// nullopt: no launcher has set anything. INVALID_ARGUMENT: names the variable that is missing, is no number, or says
// other than the rest.
absl::StatusOr<std::optional<ProcessPlace>> PlaceFromEnvironment(const EnvironmentVariable& variable);

}  // namespace sluice::tools
