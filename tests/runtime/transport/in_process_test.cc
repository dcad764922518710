// The in-process transport: the promises of every transport on the real and on simulated worlds, and those of its own.
#include "runtime/transport/in_process.h"

#include "tests/conformance/transport_conformance.h"
#include "tests/sim/sim_world.h"
#include "tests/sim/test_device.h"

namespace sluice {
namespace {

class InProcessRig final : public TransportRig {
 public:
  InProcessRig(std::unique_ptr<World> world, int ranks) : world_(std::move(world)) {
    for (int rank = 0; rank < ranks; ++rank) {
      devices_.push_back(std::make_unique<TestDevice>(world_.get(), TestDeviceOptions{}));
    }
    hub_ = std::make_unique<InProcessHub>(world_.get(), ranks);
  }
  World* world() override { return world_.get(); }
  Device* device(WorldRank rank) override { return devices_[rank.index()].get(); }
  absl::StatusOr<std::unique_ptr<Transport>> Open(WorldRank rank, const std::vector<ChannelSpec>& channels,
                                                  const std::vector<GroupSpec>& groups) override {
    return hub_->Open(rank, channels, groups);
  }

 private:
  std::unique_ptr<World> world_;
  std::vector<std::unique_ptr<Device>> devices_;
  std::unique_ptr<InProcessHub> hub_;
};

std::vector<TransportKind> Kinds() {
  std::vector<TransportKind> kinds = {
      {"Real", [](int ranks) { return std::make_unique<InProcessRig>(NewRealWorld(), ranks); }}};
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    kinds.push_back({absl::StrCat("Simulated", seed), [seed](int ranks) {
                       const SimWorldOptions options{
                           .seed = seed, .stall_one_in = seed % 2 == 0 ? 5 : 0, .stall_max = kMillisecond};
                       return std::make_unique<InProcessRig>(std::make_unique<SimWorld>(options), ranks);
                     }});
  }
  return kinds;
}

INSTANTIATE_TEST_SUITE_P(InProcess, TransportTest, testing::ValuesIn(Kinds()),
                         [](const auto& info) { return info.param.name; });

class InProcessTest : public TransportTest {};

TEST_P(InProcessTest, ATransferExchangesTheSlotsBuffersAndCopiesNothing) {
  OpenAll(2, {Edge(0, 0, 1, 0)});
  EXPECT_TRUE(ends_[0]->slots_move());
  Slot* source = NewSlot(0, 1);
  Slot* target = NewSlot(1, 2);
  const std::byte* sent = source->buffer.data();
  const std::byte* replaced = target->buffer.data();
  ends_[0]->Send(ChannelId(0), source, DoneEvent());
  ASSERT_TRUE(world().Wait(ends_[1]->Recv(ChannelId(0), target, DoneEvent())).ok());
  EXPECT_EQ(target->buffer.data(), sent);
  EXPECT_EQ(source->buffer.data(), replaced);
}

TEST_P(InProcessTest, ARankThatLeavesWhileOthersCountOnItEndsThemWithItsName) {
  OpenAll(3, {Edge(0, 0, 1, 2), Edge(1, 1, 2, 2)});
  const EventRef waiting = ends_[2]->Recv(ChannelId(1), NewSlot(2), DoneEvent());
  ends_[1] = nullptr;
  const absl::Status status = world().Wait(waiting);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("rank 1 has left"));
}

TEST_P(InProcessTest, PostingToARankThatHasLeftIsAnError) {
  OpenAll(2, {Edge(0, 0, 1, 2)});
  ends_[1] = nullptr;
  EXPECT_EQ(world().Wait(ends_[0]->Send(ChannelId(0), NewSlot(0), DoneEvent())).code(), absl::StatusCode::kUnavailable);
}

TEST_P(InProcessTest, ASlotThatIsTooSmallForItsChannelIsRefused) {
  ChannelSpec large = Edge(0, 0, 1, 2);
  large.bytes = 2 * kBytes;
  OpenAll(2, {large});
  const absl::Status status = world().Wait(ends_[0]->Send(ChannelId(0), NewSlot(0), DoneEvent()));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("64 bytes is too small"));
}

TEST_P(InProcessTest, PartsThatDoNotFillAGatherAreAnErrorForAllMembers) {
  const GroupSpec pair{
      .id = GroupId(0), .members = {WorldRank(0), WorldRank(1)}, .queue = QueueId(1), .purpose = "pair"};
  OpenAll(2, {}, {pair});
  int32_t words[3] = {};
  const auto view = [&](int64_t count) {
    return TensorView{reinterpret_cast<std::byte*>(words), DType::kI32, {count}};
  };
  const EventRef first = ends_[0]->AllGather(GroupId(0), view(1), {}, view(2), DoneEvent());
  const EventRef second = ends_[1]->AllGather(GroupId(0), view(1), {}, view(3), DoneEvent());
  for (const EventRef& event : {first, second}) {
    const absl::Status status = world().Wait(event);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("rank 1 has room for 12 of 8 bytes"));
  }
}

INSTANTIATE_TEST_SUITE_P(InProcess, InProcessTest, testing::Values(Kinds()[0], Kinds()[1]),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace sluice
