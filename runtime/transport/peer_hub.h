// Transport between the devices of one process. A message is copied by a stream on the receiver's device as soon as
// both its ends have been posted: no host thread waits for anything, slots stay where they are, and the events that are
// given out stand for the device's from then on. Written against Device and Stream, so it runs on any device; ranks may
// share one.
//
// Threads: an endpoint is used by its rank's issuing thread, Abort() by any. Whoever posts the second half issues the
// copy; the hub's task sleeps until something has ended, and looks for errors. After warm-up no operation allocates.
// Errors: the first one ends all endpoints.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "base/world.h"
#include "kernels/device.h"
#include "kernels/transport.h"

namespace sluice {

namespace internal {
class PeerState;
}

class PeerHub {
 public:
  // For world ranks 0 ... ranks-1. The world outlives the hub, the hub its endpoints.
  PeerHub(World* world, int ranks);
  ~PeerHub();

  // Opens a rank's endpoint with all channels and groups it takes part in. The rank's slots and tensors are on
  // `device`, which outlives the endpoint and can copy from those of the others. Errors as InProcessHub::Open.
  absl::StatusOr<std::unique_ptr<Transport>> Open(WorldRank rank, Device* device,
                                                  const std::vector<ChannelSpec>& channels,
                                                  const std::vector<GroupSpec>& groups);

 private:
  std::unique_ptr<internal::PeerState> state_;
};

}  // namespace sluice
