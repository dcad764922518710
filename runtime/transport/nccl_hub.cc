#include "runtime/transport/nccl_hub.h"

#include <utility>

#include "base/status.h"
#include "runtime/transport/nccl_state.h"

namespace sluice {

NcclHub::NcclHub(World* world, NcclHubOptions options)
    : state_(std::make_unique<internal::NcclState>(world, std::move(options))) {}
NcclHub::~NcclHub() = default;

absl::StatusOr<std::unique_ptr<Transport>> NcclHub::Open(WorldRank rank, Device* device,
                                                         const std::vector<ChannelSpec>& channels,
                                                         const std::vector<GroupSpec>& groups) {
  RETURN_IF_ERROR(state_->Open(rank, device, channels, groups));
  return std::make_unique<internal::Endpoint>(state_.get(), rank);
}

absl::Status NcclHub::Connect() { return state_->Connect(); }

void NcclHub::Abort(absl::Status cause) { state_->Abort(std::move(cause)); }

}  // namespace sluice
