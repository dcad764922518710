// Processes of one machine for benchmarks and tests: children forked from this one, which carries their blobs as the
// control plane would. The parent must have no other thread.
#pragma once

#include <sys/types.h>

#include <functional>
#include <vector>

#include "runtime/transport/gloo_hub.h"

namespace sluice {

class ForkedProcesses {
 public:
  // Child p runs body(p, exchange) and exits with what that returns.
  ForkedProcesses(int processes, const std::function<int(int process, const ExchangeBlobs& exchange)>& body);
  // Kills what still runs.
  ~ForkedProcesses();

  pid_t pid(int process) const { return pids_[process]; }
  // Carries one round of blobs. False: a child has ended.
  bool CarryOneRound();
  // Carries blobs until a child ends, and returns the children's statuses as of waitpid().
  std::vector<int> Join();

 private:
  std::vector<pid_t> pids_;
  std::vector<int> sockets_;
};

}  // namespace sluice
