// Transport between the ranks of one process. All endpoints share one hub, which holds for each rank and queue the lane
// of its pending operations. A transfer happens when its send and its receive are both at the head of their lanes and
// what they wait for is done: the two slots exchange their buffers, nothing is copied. So a slot's memory may end up at
// another rank: destroy all slots before any rank's device.
//
// Threads: an endpoint is used by its rank's issuing thread, Abort() by any. A transfer is made by whoever sees it
// ready first: the thread that posts its second half, or the hub's task, which sleeps until an event that a lane's head
// waits for is done and makes the copies of collectives. After warm-up no operation allocates. Errors: the first one
// ends all endpoints. A posted operation may be completed with it while its partner never comes.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "base/world.h"
#include "kernels/transport.h"

namespace sluice {

namespace internal {
class HubState;
}

class InProcessHub {
 public:
  // For world ranks 0 ... ranks-1. The world outlives the hub, the hub its endpoints.
  InProcessHub(World* world, int ranks);
  ~InProcessHub();

  // Opens a rank's endpoint with all channels and groups it takes part in. Whoever opens second is checked against the
  // first. INVALID_ARGUMENT: a channel or group that the two ends describe differently, or that only one has (both
  // descriptions are named); all endpoints then end with that error.
  absl::StatusOr<std::unique_ptr<Transport>> Open(WorldRank rank, const std::vector<ChannelSpec>& channels,
                                                  const std::vector<GroupSpec>& groups);

 private:
  std::unique_ptr<internal::HubState> state_;
};

}  // namespace sluice
