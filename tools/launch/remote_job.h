// A job on several hosts: one supervisor on each, started over ssh, which runs that host's processes and ends with its
// connection. Nothing about the job is on a command line.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/world.h"
#include "tools/launch/host_order.h"
#include "tools/launch/hosts_file.h"
#include "tools/launch/supervisor.h"

namespace sluice::tools {

struct RemoteJob {
  std::vector<HostLine> hosts;     // the first one has process 0
  std::vector<std::string> ssh;    // the words before the host's name
  std::vector<std::string> serve;  // the command there, which calls ServeHost: the same on all hosts
  HostOrder order;                 // without what differs from host to host
};

// Returns when all hosts have ended. Lines of all processes come with "node1: [2] " before them.
absl::StatusOr<SupervisionResult> RunOnHosts(const World* world, const RemoteJob& job, SupervisorOptions options);

// The supervisor on a host: takes its job from standard input, where signals follow, and ends when that ends.
// `ssh_connection`: the variable SSH_CONNECTION. Errors: the job can't run here; nothing was started.
absl::StatusOr<SupervisionResult> ServeHost(const World* world, SupervisorOptions options,
                                            const std::string& ssh_connection);

}  // namespace sluice::tools
