// The processes of a job that run on this host.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/world.h"
#include "tools/launch/supervisor.h"

namespace sluice::tools {

struct HostJob {
  std::vector<std::string> command;   // of each process: the environment tells them apart
  int first = 0;                      // the first process here
  int count = 1;                      // processes here
  int processes = 1;                  // of the whole job
  std::string address = "127.0.0.1";  // of process 0
  int port = 0;                       // 0: process 0 is here and takes any free one
  std::string token;
};

struct HostJobOptions {
  SupervisorOptions supervisor;
  // Process 0 of this job listens on `port`, and the others here are started.
  std::function<void(Supervisor* supervisor, int port)> on_listening;
  // A line of SupervisorOptions::orders.
  std::function<void(Supervisor* supervisor, absl::string_view line)> on_order;
};

// Starts the processes, process 0 first, and returns when all have ended. Process 0 writes to this process's standard
// output as if it were alone; all other lines get "[2] " before them. Errors: of this process, before anything starts.
absl::StatusOr<SupervisionResult> RunOnHost(const World* world, const HostJob& job, HostJobOptions options);

// 128 random bits in hexadecimal digits. Errors: the system has none.
absl::StatusOr<std::string> MakeToken();

}  // namespace sluice::tools
