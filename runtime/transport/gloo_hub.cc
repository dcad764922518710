#include "runtime/transport/gloo_hub.h"

#include <utility>

#include "base/status.h"
#include "runtime/transport/endpoint.h"
#include "runtime/transport/gloo_setup.h"
#include "runtime/transport/hub_state.h"

namespace sluice {

GlooHub::GlooHub(World* world, GlooHubOptions options)
    : world_(world),
      options_(std::move(options)),
      state_(std::make_unique<internal::HubState>(world, options_.process_of, options_.process)) {}
GlooHub::~GlooHub() = default;

absl::StatusOr<std::unique_ptr<Transport>> GlooHub::Open(WorldRank rank, const std::vector<ChannelSpec>& channels,
                                                         const std::vector<GroupSpec>& groups) {
  RETURN_IF_ERROR(state_->Open(rank, channels, groups));
  return std::make_unique<internal::Endpoint>(state_.get(), rank);
}

absl::Status GlooHub::Connect() {
  internal::Specs specs;
  state_->RemoteSpecs(&specs.channels, &specs.groups);
  auto links = internal::ConnectProcesses(world_, options_, specs, &device_);
  if (!links.ok()) {
    state_->Abort(links.status());
    return links.status();
  }
  state_->Connect(*std::move(links));
  return absl::OkStatus();
}

}  // namespace sluice
