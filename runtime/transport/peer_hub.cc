#include "runtime/transport/peer_hub.h"

#include "base/status.h"
#include "runtime/transport/peer_state.h"

namespace sluice {

PeerHub::PeerHub(World* world, int ranks) : state_(std::make_unique<internal::PeerState>(world, ranks)) {}
PeerHub::~PeerHub() = default;

absl::StatusOr<std::unique_ptr<Transport>> PeerHub::Open(WorldRank rank, Device* device,
                                                         const std::vector<ChannelSpec>& channels,
                                                         const std::vector<GroupSpec>& groups) {
  RETURN_IF_ERROR(state_->Open(rank, device, channels, groups));
  return std::make_unique<internal::Endpoint>(state_.get(), rank);
}

}  // namespace sluice
