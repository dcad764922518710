// The transport of several processes: the promises of every transport, with hubs that are joined over Gloo's loopback
// standing in for processes, and what is its own. Real processes that die: gloo_process_test.
#include "runtime/transport/gloo_hub.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

#include "proto/transport.pb.h"
#include "tests/conformance/transport_conformance.h"
#include "tests/runtime/transport/blob_board.h"
#include "tests/sim/test_device.h"

namespace sluice {
namespace {

// Rank r lives in process r / ranks_per_process; all connect once the last one has opened.
class GlooRig final : public TransportRig {
 public:
  GlooRig(int ranks, int ranks_per_process)
      : world_(NewRealWorld()), unopened_(ranks), board_((ranks + ranks_per_process - 1) / ranks_per_process) {
    std::vector<int> process_of(ranks);
    for (int rank = 0; rank < ranks; ++rank) {
      process_of[rank] = rank / ranks_per_process;
      devices_.push_back(std::make_unique<TestDevice>(world_.get(), TestDeviceOptions{}));
    }
    for (int process = 0; process <= process_of.back(); ++process) {
      hubs_.push_back(std::make_unique<GlooHub>(
          world_.get(), GlooHubOptions{.process = process, .process_of = process_of, .exchange = board_.Of(process)}));
    }
    process_of_ = process_of;
  }
  World* world() override { return world_.get(); }
  Device* device(WorldRank rank) override { return devices_[rank.index()].get(); }

  absl::StatusOr<std::unique_ptr<Transport>> Open(WorldRank rank, const std::vector<ChannelSpec>& channels,
                                                  const std::vector<GroupSpec>& groups) override {
    auto end = hubs_[process_of_[rank.index()]]->Open(rank, channels, groups);
    if (--unopened_ > 0 || !end.ok()) return end;
    std::vector<absl::Status> statuses(hubs_.size());
    std::vector<EventRef> tasks;
    for (size_t i = 0; i < hubs_.size(); ++i) {
      tasks.push_back(world_->Spawn({.name = "connect"}, [this, &statuses, i] { statuses[i] = hubs_[i]->Connect(); }));
    }
    for (const EventRef& task : tasks) world_->Wait(task).IgnoreError();
    for (const absl::Status& status : statuses) {
      if (!status.ok()) return status;
    }
    return end;
  }

 private:
  const std::unique_ptr<World> world_;
  int unopened_;
  BlobBoard board_;
  std::vector<int> process_of_;
  std::vector<std::unique_ptr<Device>> devices_;
  std::vector<std::unique_ptr<GlooHub>> hubs_;
};

std::vector<TransportKind> Kinds() {
  return {{"ARankAProcess", [](int ranks) { return std::make_unique<GlooRig>(ranks, 1); }},
          {"TwoRanksAProcess", [](int ranks) { return std::make_unique<GlooRig>(ranks, 2); }}};
}

INSTANTIATE_TEST_SUITE_P(Gloo, TransportTest, testing::ValuesIn(Kinds()),
                         [](const auto& info) { return info.param.name; });

// Two processes with a channel from rank 0 to rank 1, and what each says when they connect.
class GlooHubTest : public testing::Test {
 protected:
  std::vector<absl::Status> Connect(GlooHubOptions options) {
    std::vector<absl::Status> statuses(2);
    std::vector<EventRef> tasks;
    for (int process : {0, 1}) {
      options.process = process;
      options.process_of = {0, 1};
      options.exchange = Exchange(process);
      hubs_.push_back(std::make_unique<GlooHub>(world_.get(), options));
      ends_.push_back(*hubs_[process]->Open(WorldRank(process), {channel_}, {}));
    }
    for (int process : {0, 1}) {
      tasks.push_back(world_->Spawn({.name = "connect"},
                                    [this, &statuses, process] { statuses[process] = hubs_[process]->Connect(); }));
    }
    for (const EventRef& task : tasks) world_->Wait(task).IgnoreError();
    return statuses;
  }
  virtual ExchangeBlobs Exchange(int process) { return board_.Of(process); }

  const ChannelSpec channel_{.id = ChannelId(0),
                             .sender = WorldRank(0),
                             .receiver = WorldRank(1),
                             .queue = QueueId(0),
                             .bytes = 64,
                             .message = "words"};
  const std::unique_ptr<World> world_ = NewRealWorld();
  BlobBoard board_{2};
  TestDevice device_{world_.get(), TestDeviceOptions{}};
  std::vector<std::unique_ptr<GlooHub>> hubs_;
  std::vector<std::unique_ptr<Transport>> ends_;
};

TEST_F(GlooHubTest, AnInterfaceThatIsNotThereIsRefusedInAllProcesses) {
  for (const absl::Status& status : Connect({.interface = "192.0.2.1"})) {  // an address for examples, nobody's
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("interface or address '192.0.2.1'"));
  }
}

TEST_F(GlooHubTest, AnInterfaceMayBeNamed) {
  for (const absl::Status& status : Connect({.interface = "lo"})) EXPECT_TRUE(status.ok()) << status;
}

TEST_F(GlooHubTest, WhatHasMovedIsCounted) {
  for (const absl::Status& status : Connect({})) ASSERT_TRUE(status.ok()) << status;
  Slot slots[2];
  for (Slot& slot : slots) slot.buffer = *device_.Allocate(64, "slot");
  const EventRef received = ends_[1]->Recv(ChannelId(0), &slots[1], DoneEvent());
  EXPECT_EQ(ends_[1]->bytes_moved(), 0);
  ASSERT_TRUE(world_->Wait(ends_[0]->Send(ChannelId(0), &slots[0], DoneEvent())).ok());
  ASSERT_TRUE(world_->Wait(received).ok());
  EXPECT_EQ(ends_[1]->bytes_moved(), 64);
}

TEST_F(GlooHubTest, ARankOfAnotherProcessIsRefused) {
  GlooHub hub(world_.get(), {.process = 0, .process_of = {0, 1}});
  EXPECT_EQ(hub.Open(WorldRank(1), {channel_}, {}).status().code(), absl::StatusCode::kInvalidArgument);
}

// Whoever scans ports may call one of ours before the peer does.
class GlooPortTest : public GlooHubTest {
 protected:
  ExchangeBlobs Exchange(int process) override {
    return [this, process](const std::string& name, const std::string& mine) {
      if (name == "transport/links/0") {
        proto::TransportLinks links;
        CHECK(links.ParseFromString(mine));
        for (const auto& link : links.links()) CallAll(link.address());
      }
      return board_.Of(process)(name, mine);
    };
  }
  // Gloo's addresses begin with the socket's.
  static void CallAll(const std::string& addresses) {
    for (const std::string& address :
         {addresses.substr(0, addresses.size() / 2), addresses.substr(addresses.size() / 2)}) {
      sockaddr_in to;
      std::memcpy(&to, address.data(), sizeof(to));
      const int fd = socket(AF_INET, SOCK_STREAM, 0);
      CHECK_EQ(connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof(to)), 0);
      const std::string garbage = "GET / HTTP/1.1\r\nHost: somebody.else\r\nUser-Agent: a scanner of ports\r\n\r\n";
      CHECK_EQ(write(fd, garbage.data(), garbage.size()), static_cast<ssize_t>(garbage.size()));
      close(fd);
    }
  }
};

TEST_F(GlooPortTest, GarbageOnThePortsIsNotTakenForThePeer) {
  for (const absl::Status& status : Connect({})) EXPECT_TRUE(status.ok()) << status;
  Slot slots[2];
  for (Slot& slot : slots) slot.buffer = *device_.Allocate(64, "slot");
  std::memset(slots[0].buffer.data(), 7, 64);
  const EventRef sent = ends_[0]->Send(ChannelId(0), &slots[0], DoneEvent());
  ASSERT_TRUE(world_->Wait(ends_[1]->Recv(ChannelId(0), &slots[1], DoneEvent())).ok());
  EXPECT_EQ(slots[1].buffer.data()[63], std::byte{7});
  EXPECT_TRUE(world_->Wait(sent).ok());
}

}  // namespace
}  // namespace sluice
