// The transport between devices of one process: the promises of every transport, on devices whose streams are tasks of
// real and simulated worlds, and those of its own.
#include "runtime/transport/peer_hub.h"

#include "kernels/cpu/cpu_device.h"
#include "tests/conformance/transport_conformance.h"
#include "tests/sim/sim_world.h"
#include "tests/sim/test_device.h"

namespace sluice {
namespace {

class PeerRig final : public TransportRig {
 public:
  using NewDevice = std::function<std::unique_ptr<Device>(World*)>;
  // `ranks_per_device` ranks share a device.
  PeerRig(std::unique_ptr<World> world, int ranks, int ranks_per_device, const NewDevice& device)
      : world_(std::move(world)), ranks_per_device_(ranks_per_device) {
    for (int rank = 0; rank < ranks; rank += ranks_per_device) devices_.push_back(device(world_.get()));
    hub_ = std::make_unique<PeerHub>(world_.get(), ranks);
  }
  World* world() override { return world_.get(); }
  Device* device(WorldRank rank) override { return devices_[rank.index() / ranks_per_device_].get(); }
  absl::StatusOr<std::unique_ptr<Transport>> Open(WorldRank rank, const std::vector<ChannelSpec>& channels,
                                                  const std::vector<GroupSpec>& groups) override {
    return hub_->Open(rank, device(rank), channels, groups);
  }

 private:
  std::unique_ptr<World> world_;
  const int ranks_per_device_;
  std::vector<std::unique_ptr<Device>> devices_;
  std::unique_ptr<PeerHub> hub_;
};

std::vector<TransportKind> Kinds() {
  const auto cpu = [](World* world) { return cpu::NewCpuDevice(world, {}); };
  const auto test = [](World* world) { return std::make_unique<TestDevice>(world, TestDeviceOptions{}); };
  std::vector<TransportKind> kinds = {
      {"Real", [=](int ranks) { return std::make_unique<PeerRig>(NewRealWorld(), ranks, 1, cpu); }},
      {"RealShared", [=](int ranks) { return std::make_unique<PeerRig>(NewRealWorld(), ranks, 2, cpu); }}};
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    kinds.push_back({absl::StrCat("Simulated", seed), [=](int ranks) {
                       const SimWorldOptions options{
                           .seed = seed, .stall_one_in = seed % 2 == 0 ? 5 : 0, .stall_max = kMillisecond};
                       return std::make_unique<PeerRig>(std::make_unique<SimWorld>(options), ranks, 1 + seed % 3, test);
                     }});
  }
  return kinds;
}

INSTANTIATE_TEST_SUITE_P(PeerHub, TransportTest, testing::ValuesIn(Kinds()),
                         [](const auto& info) { return info.param.name; });

class PeerHubTest : public TransportTest {};

TEST_P(PeerHubTest, SlotsStayWhereTheyAre) {
  OpenAll(2, {Edge(0, 0, 1, 0)});
  EXPECT_FALSE(ends_[0]->slots_move());
  Slot* source = NewSlot(0, 1);
  Slot* target = NewSlot(1, 2);
  const std::byte* sent = source->buffer.data();
  const std::byte* received = target->buffer.data();
  ends_[0]->Send(ChannelId(0), source, DoneEvent());
  ASSERT_TRUE(world().Wait(ends_[1]->Recv(ChannelId(0), target, DoneEvent())).ok());
  EXPECT_EQ(target->buffer.data(), received);
  EXPECT_EQ(source->buffer.data(), sent);
  EXPECT_TRUE(Holds(source, 1));
}

// A chain of receive, work and send is issued before any of it can run, and each waits for the other on the device.
TEST_P(PeerHubTest, AWholeChainIsIssuedAhead) {
  OpenAll(3, {Edge(0, 0, 1, 0), Edge(1, 1, 2, 1)});
  auto written = NewSignal();
  Slot* source = NewSlot(0, 5);
  Slot* between = NewSlot(1);
  Slot* target = NewSlot(2);
  const EventRef received = ends_[1]->Recv(ChannelId(0), between, DoneEvent());
  EXPECT_EQ(received->StandsFor(), nullptr) << "nobody has sent anything";
  const EventRef passed_on = ends_[1]->Send(ChannelId(1), between, received);
  const EventRef arrived = ends_[2]->Recv(ChannelId(1), target, DoneEvent());
  ends_[0]->Send(ChannelId(0), source, written);
  EXPECT_NE(received->StandsFor(), nullptr);
  LetTimePass();
  EXPECT_FALSE(received->Done() || passed_on->Done() || arrived->Done());
  Set(written);
  ASSERT_TRUE(world().Wait(arrived).ok());
  EXPECT_TRUE(Holds(target, 5));
}

// More transfers than a stream has room for are posted while the first one stands still.
TEST_P(PeerHubTest, AnyNumberOfTransfersMayBePostedAhead) {
  constexpr int kMessages = 300;
  OpenAll(2, {Edge(0, 0, 1, 0)});
  auto written = NewSignal();
  std::vector<EventRef> events;
  std::vector<Slot*> targets;
  for (int i = 0; i < kMessages; ++i) {
    targets.push_back(NewSlot(1));
    events.push_back(ends_[0]->Send(ChannelId(0), NewSlot(0, i), i == 0 ? written : DoneEvent()));
    events.push_back(ends_[1]->Recv(ChannelId(0), targets.back(), DoneEvent()));
  }
  Set(written);
  for (const EventRef& event : events) ASSERT_TRUE(world().Wait(event).ok());
  for (int i = 0; i < kMessages; ++i) EXPECT_TRUE(Holds(targets[i], i)) << i;
}

TEST_P(PeerHubTest, ARankThatLeavesWhileOthersCountOnItEndsThemWithItsName) {
  OpenAll(3, {Edge(0, 0, 1, 2), Edge(1, 1, 2, 2)});
  auto never = NewSignal();
  const EventRef issued = ends_[0]->Send(ChannelId(0), NewSlot(0), never);
  ends_[1]->Recv(ChannelId(0), NewSlot(1), DoneEvent());
  const EventRef waiting = ends_[2]->Recv(ChannelId(1), NewSlot(2), DoneEvent());
  ends_[1] = nullptr;
  for (const EventRef& event : {issued, waiting}) {
    const absl::Status status = world().Wait(event);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("rank 1 has left"));
  }
  EXPECT_EQ(world().Wait(ends_[0]->Send(ChannelId(0), NewSlot(0), DoneEvent())).code(), absl::StatusCode::kUnavailable);
}

INSTANTIATE_TEST_SUITE_P(PeerHub, PeerHubTest, testing::Values(Kinds()[0], Kinds()[1], Kinds()[2], Kinds()[3]),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace sluice
