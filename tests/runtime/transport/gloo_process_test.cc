// The transport between real processes, and what it does when they die, stand still, or leave.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/transport/gloo_hub.h"
#include "tests/sim/test_device.h"
#include "tools/bench/forked_processes.h"

namespace sluice {
namespace {

constexpr int64_t kLarge = 64 << 20;
constexpr Nanoseconds kLong = 20 * kSecond;

// One rank's process: a channel to each neighbour and one group of all.
class Process {
 public:
  Process(int process, int processes, int64_t bytes, const ExchangeBlobs& exchange)
      : world_(NewRealWorld()), device_(world_.get(), TestDeviceOptions{}), process_(process) {
    GlooHubOptions options{.process = process, .exchange = exchange};
    GroupSpec group{.id = GroupId(0), .queue = QueueId(1), .purpose = "all"};
    std::vector<ChannelSpec> channels;
    for (int rank = 0; rank < processes; ++rank) {
      options.process_of.push_back(rank);
      group.members.push_back(WorldRank(rank));
      if (rank + 1 < processes && (rank == process || rank + 1 == process)) {
        channels.push_back({.id = ChannelId(rank),
                            .sender = WorldRank(rank),
                            .receiver = WorldRank(rank + 1),
                            .queue = QueueId(0),
                            .bytes = bytes,
                            .message = "words"});
      }
    }
    hub_ = std::make_unique<GlooHub>(world_.get(), options);
    auto end = hub_->Open(WorldRank(process), channels, {group});
    CHECK_OK(end.status());
    end_ = *std::move(end);
    auto buffer = device_.Allocate(bytes, "slot");
    CHECK_OK(buffer.status());
    slot_.buffer = *std::move(buffer);
    CHECK_OK(hub_->Connect());
  }

  World* world() { return world_.get(); }
  Transport* end() { return end_.get(); }
  Slot* slot() { return &slot_; }
  EventRef Send() { return end_->Send(ChannelId(process_), &slot_, DoneEvent()); }
  EventRef Recv() { return end_->Recv(ChannelId(process_ - 1), &slot_, DoneEvent()); }
  // DEADLINE_EXCEEDED if it takes too long.
  absl::Status WaitFor(const EventRef& event) {
    if (!world_->WaitAny({event}, world_->Now() + kLong)) return absl::DeadlineExceededError("it hangs");
    return event->status();
  }

 private:
  std::unique_ptr<World> world_;
  TestDevice device_;
  Slot slot_;
  const int process_;
  std::unique_ptr<GlooHub> hub_;
  std::unique_ptr<Transport> end_;
};

// What a child of a test found wrong is its exit status.
int Verdict(const absl::Status& status, absl::StatusCode code, const std::string& says) {
  if (status.code() == code && status.message().find(says) != absl::string_view::npos) return 0;
  std::fprintf(stderr, "expected '%s', got: %s\n", says.c_str(), status.ToString().c_str());
  return 1;
}

bool EndedWell(int status) { return WIFEXITED(status) && WEXITSTATUS(status) == 0; }

TEST(GlooProcess, MessagesAndCollectivesPassBetweenProcesses) {
  ForkedProcesses children(3, [](int rank, const ExchangeBlobs& exchange) {
    Process process(rank, 3, kLarge, exchange);
    auto* words = reinterpret_cast<int32_t*>(process.slot()->buffer.data());
    if (rank > 0) CHECK_OK(process.WaitFor(process.Recv()));
    if (rank == 0) {
      for (int64_t i = 0; i < kLarge / 4; ++i) words[i] = static_cast<int32_t>(3 * i);
    }
    if (rank < 2) CHECK_OK(process.WaitFor(process.Send()));
    for (int64_t i = 0; i < kLarge / 4; ++i) CHECK_EQ(words[i], 3 * i);
    int32_t mine = 10 + rank, all[3] = {};
    CHECK_OK(process.WaitFor(
        process.end()->AllGather(GroupId(0), {reinterpret_cast<std::byte*>(&mine), DType::kI32, {1}}, {},
                                 {reinterpret_cast<std::byte*>(all), DType::kI32, {3}}, DoneEvent())));
    return all[0] == 10 && all[1] == 11 && all[2] == 12 ? 0 : 1;
  });
  for (const int status : children.Join()) EXPECT_TRUE(EndedWell(status)) << status;
}

// Rank 1 dies when its first piece is there and the rest is on its way; rank 2 waits for a gather with all.
TEST(GlooProcess, AProcessThatIsKilledInTheMidstOfAMessageIsNamedToAllOthers) {
  for (const bool receiver_dies : {true, false}) {
    ForkedProcesses children(3, [=](int rank, const ExchangeBlobs& exchange) {
      Process process(rank, 3, kLarge, exchange);
      const int dying = receiver_dies ? 1 : 0;
      if (rank == dying) {
        std::memset(process.slot()->buffer.data(), 0, kLarge);
        const EventRef moving = rank == 0 ? process.Send() : process.Recv();
        while (!moving->Done()) {
          process.world()->SleepUntil(process.world()->Now() + kMillisecond);
          kill(getpid(), SIGKILL);
        }
      }
      int32_t mine = 0, all[3] = {};
      const EventRef event = rank == 0   ? process.Send()
                             : rank == 1 ? process.Recv()
                                         : process.end()->AllGather(
                                               GroupId(0), {reinterpret_cast<std::byte*>(&mine), DType::kI32, {1}}, {},
                                               {reinterpret_cast<std::byte*>(all), DType::kI32, {3}}, DoneEvent());
      return Verdict(process.WaitFor(event), absl::StatusCode::kUnavailable,
                     absl::StrCat("process ", dying, " (rank ", dying, ")"));
    });
    const std::vector<int> statuses = children.Join();
    for (int rank = 0; rank < 3; ++rank) {
      const bool died = WIFSIGNALED(statuses[rank]) && WTERMSIG(statuses[rank]) == SIGKILL;
      EXPECT_TRUE(rank == (receiver_dies ? 1 : 0) ? died : EndedWell(statuses[rank])) << "rank " << rank;
    }
  }
}

TEST(GlooProcess, AProcessThatStandsStillForAWhileIsWaitedFor) {
  ForkedProcesses children(2, [](int rank, const ExchangeBlobs& exchange) {
    Process process(rank, 2, kLarge, exchange);
    for (int i = 0; i < 3; ++i) {
      const EventRef moving = rank == 0 ? process.Send() : process.Recv();
      if (i == 1 && rank == 1) kill(getpid(), SIGSTOP);
      CHECK_OK(process.WaitFor(moving));
    }
    return 0;
  });
  for (int round = 0; round < 3; ++round) ASSERT_TRUE(children.CarryOneRound());  // as many as it takes to connect
  int status = 0;
  ASSERT_EQ(waitpid(children.pid(1), &status, WUNTRACED), children.pid(1));
  ASSERT_TRUE(WIFSTOPPED(status));
  usleep(300'000);
  EXPECT_EQ(waitpid(children.pid(0), &status, WNOHANG), 0) << "the other one waits";
  kill(children.pid(1), SIGCONT);
  for (const int end : children.Join()) EXPECT_TRUE(EndedWell(end)) << end;
}

TEST(GlooProcess, AProcessThatLeavesWhileOthersCountOnItEndsThemWithItsName) {
  ForkedProcesses children(3, [](int rank, const ExchangeBlobs& exchange) {
    Process process(rank, 3, 64, exchange);
    if (rank == 0) return 0;
    return Verdict(process.WaitFor(process.Recv()), absl::StatusCode::kUnavailable, "has left");
  });
  for (const int status : children.Join()) EXPECT_TRUE(EndedWell(status)) << status;
}

// Who has all that it wants may leave while others still exchange.
TEST(GlooProcess, AProcessThatIsDoneMayLeaveBeforeTheOthers) {
  ForkedProcesses children(3, [](int rank, const ExchangeBlobs& exchange) {
    Process process(rank, 3, kLarge, exchange);
    if (rank == 0) {
      CHECK_OK(process.WaitFor(process.Send()));
      return 0;
    }
    for (int i = 0; i < (rank == 1 ? 1 : 4); ++i) CHECK_OK(process.WaitFor(process.Recv()));
    if (rank == 2) return 0;
    for (int i = 0; i < 4; ++i) CHECK_OK(process.WaitFor(process.Send()));
    return 0;
  });
  for (const int status : children.Join()) EXPECT_TRUE(EndedWell(status)) << status;
}

}  // namespace
}  // namespace sluice
