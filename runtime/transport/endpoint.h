// One rank's end of a hub.
#pragma once

#include <utility>

#include "runtime/transport/request.h"

namespace sluice::internal {

// What all endpoints of one process share. Any rank's thread.
class Hub {
 public:
  virtual ~Hub() = default;
  virtual EventRef PostTransfer(WorldRank rank, ChannelId channel, Request request) = 0;
  virtual EventRef PostCollective(WorldRank rank, GroupId group, Request request) = 0;
  virtual bool slots_move() const = 0;
  virtual int64_t bytes_moved() const = 0;
  virtual void Abort(absl::Status cause) = 0;
  // The rank posts nothing more, and its memory is not touched any more.
  virtual void Close(WorldRank rank) = 0;
};

class Endpoint final : public Transport {
 public:
  Endpoint(Hub* hub, WorldRank rank) : hub_(hub), rank_(rank) {}
  ~Endpoint() override { hub_->Close(rank_); }

  WorldRank rank() const override { return rank_; }
  bool slots_move() const override { return hub_->slots_move(); }
  EventRef Send(ChannelId channel, Slot* slot, const EventRef& after) override {
    return hub_->PostTransfer(rank_, channel, {.kind = Request::Kind::kSend, .slot = slot, .after = after});
  }
  EventRef Recv(ChannelId channel, Slot* slot, const EventRef& slot_free) override {
    return hub_->PostTransfer(rank_, channel, {.kind = Request::Kind::kRecv, .slot = slot, .after = slot_free});
  }
  EventRef AllGather(GroupId group, TensorView mine, absl::Span<const int64_t> parts, TensorView all,
                     const EventRef& after) override {
    return hub_->PostCollective(
        rank_, group, {.kind = Request::Kind::kAllGather, .mine = mine, .all = all, .parts = parts, .after = after});
  }
  EventRef AllToAll(GroupId group, TensorView mine, absl::Span<const int64_t> parts, TensorView all,
                    const EventRef& after) override {
    return hub_->PostCollective(
        rank_, group, {.kind = Request::Kind::kAllToAll, .mine = mine, .all = all, .parts = parts, .after = after});
  }
  int64_t bytes_moved() const override { return hub_->bytes_moved(); }
  void Abort(absl::Status cause) override { hub_->Abort(std::move(cause)); }

 private:
  Hub* const hub_;
  const WorldRank rank_;
};

}  // namespace sluice::internal
