// Transport between the ranks of a job of several processes: ranks of one process hand slots over (in_process.h), ranks
// of different ones are reached over Gloo, and a lane keeps its order across both. Sends of one channel may be under
// way together, all else in a lane moves one after the other; a message moves in pieces of a MiB.
//
// Threads: as in_process.h; beside that one thread a lane that leads to other processes, one a connection, and Gloo's
// one. Errors: the first one ends all endpoints of this process, and is told to the processes that it is connected to,
// which end with it too. UNAVAILABLE: a process has died, ended too early, or its connection broke; the message names
// it and its ranks. A process that stands still is not dead: deadlines are the caller's.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/world.h"
#include "kernels/transport.h"
#include "runtime/transport/process_specs.h"

namespace sluice {

namespace internal {
class HubState;
class GlooDevice;
}  // namespace internal

struct GlooHubOptions {
  int process = 0;              // this one
  std::vector<int> process_of;  // of each world rank of the job
  // Network interface, address or host name to listen on. Empty: loopback if all processes are on one host, else the
  // first address that others can reach.
  std::string interface;
  bool one_host = true;
  ExchangeBlobs exchange;
};

class GlooHub {
 public:
  // The world, a real one, outlives the hub, the hub its endpoints.
  GlooHub(World* world, GlooHubOptions options);
  // Says goodbye to the other processes. Their operations with ranks of this one fail from then on.
  ~GlooHub();

  // As InProcessHub::Open, for ranks of this process.
  absl::StatusOr<std::unique_ptr<Transport>> Open(WorldRank rank, const std::vector<ChannelSpec>& channels,
                                                  const std::vector<GroupSpec>& groups);

  // Connects to the processes with which there are channels or groups in common. Called by every process once, after it
  // has opened all its ranks; blocks until all are there. What is posted before waits for it. INVALID_ARGUMENT: the
  // processes describe a channel or group differently (both descriptions are named), or can't listen where the options
  // say. UNAVAILABLE: no connection came about. The endpoints then end with the error, in every process.
  absl::Status Connect();

 private:
  World* const world_;
  const GlooHubOptions options_;
  std::unique_ptr<internal::GlooDevice> device_;
  std::unique_ptr<internal::HubState> state_;
};

}  // namespace sluice
