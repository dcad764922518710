#include "tests/sim/fixed_slots_transport.h"

#include <cstring>
#include <utility>
#include <vector>

#include "base/check.h"

namespace sluice {
namespace {

class FixedSlotsTransport final : public Transport {
 public:
  FixedSlotsTransport(std::unique_ptr<Transport> transport, World* world, Device* device)
      : transport_(std::move(transport)), world_(world), device_(device) {}
  ~FixedSlotsTransport() override {
    for (const EventRef& task : tasks_) world_->Wait(task).IgnoreError();
  }

  WorldRank rank() const override { return transport_->rank(); }
  bool slots_move() const override { return false; }

  EventRef Send(ChannelId channel, Slot* slot, const EventRef& after) override {
    Slot* staging = NewStaging(slot);
    auto copied = MakeRef<Signal>();
    tasks_.push_back(world_->Spawn({.name = "copy out"}, [=, world = world_] {
      absl::Status status = world->Wait(after);
      if (status.ok()) std::memcpy(staging->buffer.data(), slot->buffer.data(), slot->buffer.bytes());
      copied->Set(std::move(status), world->Now());
    }));
    return transport_->Send(channel, staging, copied);
  }

  EventRef Recv(ChannelId channel, Slot* slot, const EventRef& slot_free) override {
    Slot* staging = NewStaging(slot);
    const EventRef received = transport_->Recv(channel, staging, slot_free);
    auto copied = MakeRef<Signal>();
    tasks_.push_back(world_->Spawn({.name = "copy in"}, [=, world = world_] {
      absl::Status status = world->Wait(received);
      if (status.ok()) std::memcpy(slot->buffer.data(), staging->buffer.data(), slot->buffer.bytes());
      copied->Set(std::move(status), received->began(), received->ended());
    }));
    return copied;
  }

  EventRef AllGather(GroupId group, TensorView mine, absl::Span<const int64_t> parts, TensorView all,
                     const EventRef& after) override {
    return transport_->AllGather(group, mine, parts, all, after);
  }
  EventRef AllToAll(GroupId group, TensorView mine, absl::Span<const int64_t> parts, TensorView all,
                    const EventRef& after) override {
    return transport_->AllToAll(group, mine, parts, all, after);
  }
  int64_t bytes_moved() const override { return transport_->bytes_moved(); }
  void Abort(absl::Status cause) override { transport_->Abort(std::move(cause)); }

 private:
  Slot* NewStaging(const Slot* like) {
    auto buffer = device_->Allocate(like->buffer.bytes(), "staging");
    CHECK_OK(buffer.status());
    staging_.push_back(std::make_unique<Slot>(Slot{*std::move(buffer)}));
    return staging_.back().get();
  }

  std::vector<std::unique_ptr<Slot>> staging_;
  const std::unique_ptr<Transport> transport_;  // dies before the slots it may still hold
  World* const world_;
  Device* const device_;
  std::vector<EventRef> tasks_;
};

}  // namespace

std::unique_ptr<Transport> NewFixedSlotsTransport(std::unique_ptr<Transport> transport, World* world, Device* device) {
  return std::make_unique<FixedSlotsTransport>(std::move(transport), world, device);
}

}  // namespace sluice
