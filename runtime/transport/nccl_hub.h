// Transport between GPUs of several processes, over NCCL: each queue of a rank is a stream of the highest priority on
// its GPU, on which its transfers and collectives are issued in posting order, when they are posted; nothing on the
// host waits for another rank. Communicators are split from one world (nccl_plan.h) and connected before the first
// message. Each rank has a GPU of its own. Slots stay where they are.
//
// NCCL knows neither names nor sizes of messages: that both ends mean the same follows from the program, which all
// processes have alike, and which was proven; between ranks of one process it is checked. An operation is measured from
// when this end began to wait for the other.
//
// Threads: an endpoint is used by its rank's issuing thread, Abort() by any; the hub's task looks for what has ended
// and for errors. After warm-up no operation allocates. Errors: the first one of a process ends all its endpoints and
// aborts all their communicators; NCCL tells other processes late or never, so whoever made the hub does (on_failure).
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "base/world.h"
#include "kernels/device.h"
#include "kernels/transport.h"
#include "runtime/transport/process_specs.h"

namespace sluice {

namespace internal {
class NcclState;
}

struct NcclHubOptions {
  int process = 0;              // this one
  std::vector<int> process_of;  // of each world rank of the job
  ExchangeBlobs exchange;
  // Channels, each a multiprocessor of the GPU, that one operation takes at most; 0: as NCCL decides.
  int channels_max = 0;
  Nanoseconds connect_limit = 120 * kSecond;
  // Hears of the first error of this process, on the hub's task. May be null.
  std::function<void(const absl::Status& cause)> on_failure;
};

class NcclHub {
 public:
  // The world outlives the hub, the hub its endpoints.
  NcclHub(World* world, NcclHubOptions options);
  // Leaves together with the other processes, or without them after a moment.
  ~NcclHub();

  // As PeerHub::Open, for ranks of this process. The device, a GPU, outlives the endpoint.
  absl::StatusOr<std::unique_ptr<Transport>> Open(WorldRank rank, Device* device,
                                                  const std::vector<ChannelSpec>& channels,
                                                  const std::vector<GroupSpec>& groups);

  // Makes the communicators and connects them. Called by every process once, after it has opened all its ranks; blocks
  // until all are there. What is posted before waits for it. INVALID_ARGUMENT: the processes describe a channel or
  // group differently. FAILED_PRECONDITION: this program was built without NCCL, or the processes have different ones.
  // UNAVAILABLE, DEADLINE_EXCEEDED: no connection came about. The endpoints then end with the error.
  absl::Status Connect();

  // Ends all endpoints, for a cause from elsewhere. Any thread.
  void Abort(absl::Status cause);

 private:
  std::unique_ptr<internal::NcclState> state_;
};

}  // namespace sluice
