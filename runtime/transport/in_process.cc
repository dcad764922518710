#include "runtime/transport/in_process.h"

#include "base/status.h"
#include "runtime/transport/endpoint.h"
#include "runtime/transport/hub_state.h"

namespace sluice {

InProcessHub::InProcessHub(World* world, int ranks)
    : state_(std::make_unique<internal::HubState>(world, std::vector<int>(ranks, 0), 0)) {}
InProcessHub::~InProcessHub() = default;

absl::StatusOr<std::unique_ptr<Transport>> InProcessHub::Open(WorldRank rank, const std::vector<ChannelSpec>& channels,
                                                              const std::vector<GroupSpec>& groups) {
  RETURN_IF_ERROR(state_->Open(rank, channels, groups));
  return std::make_unique<internal::Endpoint>(state_.get(), rank);
}

}  // namespace sluice
