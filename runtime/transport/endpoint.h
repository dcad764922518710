// One rank's end of a hub.
#pragma once

#include <utility>

#include "runtime/transport/hub_state.h"

namespace sluice::internal {

class Endpoint final : public Transport {
 public:
  Endpoint(HubState* hub, WorldRank rank) : hub_(hub), rank_(rank) {}
  ~Endpoint() override { hub_->Close(rank_); }

  WorldRank rank() const override { return rank_; }
  bool slots_move() const override { return true; }
  EventRef Send(ChannelId channel, Slot* slot, const EventRef& after) override {
    return hub_->PostTransfer(rank_, channel, {.kind = Operation::Kind::kSend, .slot = slot, .after = after});
  }
  EventRef Recv(ChannelId channel, Slot* slot, const EventRef& slot_free) override {
    return hub_->PostTransfer(rank_, channel, {.kind = Operation::Kind::kRecv, .slot = slot, .after = slot_free});
  }
  EventRef AllGather(GroupId group, TensorView mine, TensorView all, const EventRef& after) override {
    return hub_->PostCollective(rank_, group,
                                {.kind = Operation::Kind::kAllGather, .mine = mine, .all = all, .after = after});
  }
  EventRef AllToAll(GroupId group, TensorView mine, absl::Span<const int64_t> parts, TensorView all,
                    const EventRef& after) override {
    return hub_->PostCollective(
        rank_, group, {.kind = Operation::Kind::kAllToAll, .mine = mine, .all = all, .parts = parts, .after = after});
  }
  int64_t bytes_moved() const override { return hub_->bytes_moved(); }
  void Abort(absl::Status cause) override { hub_->Abort(std::move(cause)); }

 private:
  HubState* const hub_;
  const WorldRank rank_;
};

}  // namespace sluice::internal
