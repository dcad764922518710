// The simulated NCCL: what it does, what it reports, and what goes wrong on demand.
#include "tests/gpu_sim/include/nccl.h"

#include <cstring>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/gpu_sim/memory.h"
#include "tests/gpu_sim/test_program.h"

namespace gpu_sim {
namespace {

using sluice::kMillisecond;
using sluice::Nanoseconds;
using testing::HasSubstr;

constexpr int64_t kBytes = 64;

// Some ranks, each with a device, a stream and memory, all used by the test's thread.
class NcclTest : public testing::Test {
 protected:
  void Make(int ranks, MachineOptions options = {}) {
    options.devices = ranks;
    test_.emplace(std::move(options));
    ncclUniqueId id;
    ASSERT_EQ(ncclGetUniqueId(&id), ncclSuccess);
    world_.assign(ranks, nullptr);
    for (int rank = 0; rank < ranks; ++rank) {
      streams_.push_back(NewStream(rank));
      data_.push_back(NewMemory(kBytes * ranks, rank));
      MustSucceed(cudaMemsetAsync(data_[rank], rank + 1, kBytes * ranks, streams_[rank]));
      ncclConfig_t config = NonBlocking();
      ASSERT_EQ(ncclCommInitRankConfig(&world_[rank], ranks, id, rank, &config), ncclInProgress);
    }
    for (ncclComm_t comm : world_) ASSERT_EQ(Settle(comm), ncclSuccess);
  }
  static ncclConfig_t NonBlocking() {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    return config;
  }
  Machine& machine() { return test_->machine; }
  void Pass(Nanoseconds time) { test_->world.Spend(time); }
  // What the communicator says when it is no longer in progress, or after a second.
  ncclResult_t Settle(ncclComm_t comm) {
    ncclResult_t state = ncclInProgress;
    for (int i = 0; i < 1000 && state == ncclInProgress; ++i) {
      EXPECT_EQ(ncclCommGetAsyncError(comm, &state), ncclSuccess);
      if (state == ncclInProgress) Pass(kMillisecond);
    }
    return state;
  }
  // The call's or, if that is in progress, what came of it.
  void Call(ncclComm_t comm, ncclResult_t result) {
    EXPECT_TRUE(result == ncclSuccess || result == ncclInProgress) << result;
    EXPECT_EQ(Settle(comm), ncclSuccess);
  }
  std::byte* Place(int rank, int place) { return data_[rank] + place * kBytes; }
  void Send(int from, int to, int place = 0, ncclComm_t comm = nullptr, cudaStream_t stream = nullptr) {
    comm = comm != nullptr ? comm : world_[from];
    stream = stream != nullptr ? stream : streams_[from];
    Call(comm, ncclSend(Place(from, place), kBytes, ncclInt8, to, comm, stream));
  }
  void Recv(int at, int from, int place = 1, ncclComm_t comm = nullptr, cudaStream_t stream = nullptr) {
    comm = comm != nullptr ? comm : world_[at];
    stream = stream != nullptr ? stream : streams_[at];
    Call(comm, ncclRecv(Place(at, place), kBytes, ncclInt8, from, comm, stream));
  }
  bool Ended(int rank) { return cudaStreamQuery(streams_[rank]) == cudaSuccess; }
  int ByteOf(int rank, int place) { return static_cast<int>(*StorageOf(Place(rank, place))); }
  std::vector<ncclComm_t> Split(const std::vector<int>& colors, const std::vector<int>& keys) {
    std::vector<ncclComm_t> made(world_.size());
    for (size_t rank = 0; rank < world_.size(); ++rank) {
      EXPECT_EQ(ncclCommSplit(world_[rank], colors[rank], keys[rank], &made[rank], nullptr), ncclInProgress);
    }
    for (ncclComm_t comm : world_) EXPECT_EQ(Settle(comm), ncclSuccess);
    return made;
  }
  static constexpr Nanoseconds kAWhile = 100 * kMillisecond;

  std::optional<TestMachine> test_;
  std::vector<ncclComm_t> world_;
  std::vector<cudaStream_t> streams_;
  std::vector<std::byte*> data_;
};

TEST_F(NcclTest, ASplitOrdersRanksByKeyAndLeavesOutThoseWithoutColor) {
  Make(5);
  const std::vector<ncclComm_t> made = Split({7, 2, 7, NCCL_SPLIT_NOCOLOR, 7}, {3, 0, 1, 0, 2});
  EXPECT_EQ(made[3], nullptr);
  const int ranks[] = {2, 0, 0, -1, 1}, counts[] = {3, 1, 3, -1, 3};
  for (const int i : {0, 1, 2, 4}) {
    int rank = -1, count = -1;
    EXPECT_EQ(ncclCommUserRank(made[i], &rank), ncclSuccess);
    EXPECT_EQ(ncclCommCount(made[i], &count), ncclSuccess);
    EXPECT_EQ(rank, ranks[i]);
    EXPECT_EQ(count, counts[i]);
  }
  EXPECT_EQ(machine().ReportText(), "");
}

TEST_F(NcclTest, ASendEndsOnlyWithItsReceive) {
  Make(2);
  Send(0, 1);
  Pass(kAWhile);
  EXPECT_FALSE(Ended(0));
  Recv(1, 0);
  Pass(kAWhile);
  EXPECT_TRUE(Ended(0) && Ended(1));
  EXPECT_EQ(ByteOf(1, 1), 1);
  EXPECT_EQ(machine().ReportText(), "");
}

TEST_F(NcclTest, AGatherPutsAllPartsInOrderOnAllRanks) {
  for (const bool in_place : {false, true}) {
    streams_.clear();
    data_.clear();
    test_.reset();
    Make(3);
    for (int rank = 0; rank < 3; ++rank) {
      std::byte* const mine = in_place ? Place(rank, rank) : NewMemory(kBytes, rank);
      MustSucceed(cudaMemsetAsync(mine, 10 + rank, kBytes, streams_[rank]));
      Call(world_[rank], ncclAllGather(mine, data_[rank], kBytes / 4, ncclFloat32, world_[rank], streams_[rank]));
    }
    Pass(kAWhile);
    for (int rank = 0; rank < 3; ++rank) {
      EXPECT_TRUE(Ended(rank));
      for (int place = 0; place < 3; ++place) EXPECT_EQ(ByteOf(rank, place), 10 + place);
    }
    EXPECT_EQ(machine().ReportText(), "");
  }
}

TEST_F(NcclTest, AnExchangeInAGroupEnds) {
  Make(2);
  for (const int rank : {0, 1}) {
    ASSERT_EQ(ncclGroupStart(), ncclSuccess);
    EXPECT_EQ(ncclSend(Place(rank, 0), kBytes, ncclInt8, 1 - rank, world_[rank], streams_[rank]), ncclSuccess);
    EXPECT_EQ(ncclRecv(Place(rank, 1), kBytes, ncclInt8, 1 - rank, world_[rank], streams_[rank]), ncclSuccess);
    Call(world_[rank], ncclGroupEnd());
  }
  Pass(kAWhile);
  EXPECT_TRUE(Ended(0) && Ended(1));
  EXPECT_EQ(ByteOf(0, 1), 2);
  EXPECT_EQ(ByteOf(1, 1), 1);
  EXPECT_EQ(machine().ReportText(), "");
}

TEST_F(NcclTest, TheSameWithoutAGroupIsADeadlockNamedWithItsCircle) {
  Make(2);
  for (const int rank : {0, 1}) {
    Send(rank, 1 - rank);
    Recv(rank, 1 - rank);
  }
  Pass(kAWhile);
  EXPECT_FALSE(Ended(0) || Ended(1));
  EXPECT_GT(test_->Times(ReportKind::kDeadlock), 0);
  for (const char* part : {"rank 0 of communicator 0 sends 64", "rank 1 of communicator 0 sends 64",
                           "stream 0 of device 0", "stream 1 of device 1", "nccl_test.cc"}) {
    EXPECT_THAT(machine().ReportText(), HasSubstr(part));
  }
}

TEST_F(NcclTest, WhatNobodyHasIssuedYetIsNoDeadlock) {
  Make(2);
  Send(0, 1);
  Recv(0, 1);
  Pass(kAWhile);
  EXPECT_EQ(machine().ReportText(), "");
}

TEST_F(NcclTest, ACollectiveAgainstATransferIsADeadlock) {
  Make(2);
  Call(world_[0], ncclAllGather(Place(0, 0), data_[0], kBytes, ncclInt8, world_[0], streams_[0]));
  Recv(0, 1);
  Send(1, 0);
  Call(world_[1], ncclAllGather(Place(1, 1), data_[1], kBytes, ncclInt8, world_[1], streams_[1]));
  Pass(kAWhile);
  EXPECT_GT(test_->Times(ReportKind::kDeadlock), 0);
}

// Two communicators, whose transfers the ranks issue in opposite order.
TEST_F(NcclTest, CommunicatorsRunAtOnceOrOneAtATime) {
  for (const bool one_at_a_time : {false, true}) {
    streams_.clear();
    data_.clear();
    test_.reset();
    Make(2, {.nccl_one_at_a_time = one_at_a_time});
    const std::vector<ncclComm_t> other = Split({0, 0}, {0, 1});
    const cudaStream_t more[] = {NewStream(0), NewStream(1)};
    Send(0, 1, 0);
    Recv(0, 1, 1, other[0], more[0]);
    Send(1, 0, 0, other[1], more[1]);
    Recv(1, 0, 1);
    Pass(kAWhile);
    EXPECT_EQ(Ended(0) && Ended(1), !one_at_a_time);
    EXPECT_EQ(test_->Times(ReportKind::kDeadlock) > 0, one_at_a_time) << machine().ReportText();
  }
}

TEST_F(NcclTest, EndsThatDoNotFitTogetherAreNamedBoth) {
  struct Case {
    size_t count;
    ncclDataType_t type;
  };
  for (const Case& other : {Case{32, ncclInt8}, Case{64, ncclUint8}}) {
    for (const bool gathers : {false, true}) {
      streams_.clear();
      data_.clear();
      test_.reset();
      Make(2);
      Call(world_[0], gathers ? ncclAllGather(Place(0, 0), data_[0], 64, ncclInt8, world_[0], streams_[0])
                              : ncclSend(Place(0, 0), 64, ncclInt8, 1, world_[0], streams_[0]));
      const ncclResult_t result =
          gathers ? ncclAllGather(Place(1, 1), data_[1], other.count, other.type, world_[1], streams_[1])
                  : ncclRecv(Place(1, 0), other.count, other.type, 0, world_[1], streams_[1]);
      EXPECT_TRUE(result == ncclSuccess || result == ncclInProgress);
      EXPECT_EQ(Settle(world_[1]), ncclInvalidUsage);
      EXPECT_EQ(Settle(world_[0]), ncclInvalidUsage);
      const std::string text = machine().ReportText();
      EXPECT_EQ(test_->Times(ReportKind::kMismatch), 1);
      EXPECT_THAT(text, HasSubstr("rank 0 of communicator 0"));
      EXPECT_THAT(text, HasSubstr("rank 1 of communicator 0"));
      EXPECT_THAT(text, HasSubstr(absl::StrCat(other.count, " elements of type ", other.type)));
      EXPECT_THAT(std::string(ncclGetLastError(world_[0])), HasSubstr("don't fit together"));
      Pass(kAWhile);
      EXPECT_FALSE(Ended(0)) << "as the real one, it hangs";
    }
  }
}

TEST_F(NcclTest, WhoDoesNotWaitForAReceiveRaces) {
  Make(2);
  const cudaStream_t compute = NewStream(1);
  Send(0, 1);
  Recv(1, 0);
  EXPECT_EQ(Touch("use", compute, {Bytes(Place(1, 1), kBytes)}, {}), cudaSuccess);
  EXPECT_GT(test_->Times(ReportKind::kRace), 0);
  EXPECT_THAT(machine().ReportText(), HasSubstr("ncclRecv"));
}

// A call in progress has not reached the stream: an event recorded now does not stand for it.
TEST_F(NcclTest, WhoRecordsBeforeTheCallIsDoneRaces) {
  int raced = 0, asked = 0;
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    streams_.clear();
    data_.clear();
    test_.reset();
    Make(2, {.seed = seed});
    const cudaStream_t compute = NewStream(1);
    const cudaEvent_t received = NewEvent(1);
    Send(0, 1);
    const ncclResult_t result = ncclRecv(Place(1, 1), kBytes, ncclInt8, 0, world_[1], streams_[1]);
    MustSucceed(cudaEventRecord(received, streams_[1]));
    EXPECT_EQ(Settle(world_[1]), ncclSuccess);
    MustSucceed(cudaStreamWaitEvent(compute, received));
    EXPECT_EQ(Touch("use", compute, {Bytes(Place(1, 1), kBytes)}, {}), cudaSuccess);
    asked += result == ncclInProgress;
    raced += test_->Times(ReportKind::kRace) > 0;
  }
  EXPECT_GT(asked, 0);
  EXPECT_EQ(raced, asked);
}

TEST_F(NcclTest, UseAgainstTheRulesIsRefusedAndReported) {
  struct Case {
    const char* says;
    ncclResult_t result;
    std::function<ncclResult_t()> call;
  };
  Make(3);
  ncclComm_t made = nullptr;
  const std::vector<Case> cases = {
      {"no group was begun", ncclInvalidUsage, [&] { return ncclGroupEnd(); }},
      {"there is no rank 3", ncclInvalidArgument,
       [&] { return ncclSend(Place(0, 0), 1, ncclInt8, 3, world_[0], streams_[0]); }},
      {"a message of no bytes", ncclInvalidArgument,
       [&] { return ncclSend(Place(0, 0), 0, ncclInt8, 1, world_[0], streams_[0]); }},
      {"without its other end", ncclInvalidUsage,
       [&] { return ncclSend(Place(0, 0), 1, ncclInt8, 0, world_[0], streams_[0]); }},
      {"a second stream", ncclInvalidUsage,
       [&] { return ncclSend(Place(0, 0), 1, ncclInt8, 1, world_[0], NewStream(0)); }},
      {"finalized before it is destroyed", ncclInvalidUsage, [&] { return ncclCommDestroy(world_[0]); }},
      {"still in progress", ncclInvalidArgument,
       [&] {
         EXPECT_EQ(ncclCommSplit(world_[1], 0, 0, &made, nullptr), ncclInProgress);
         return ncclSend(Place(1, 0), 1, ncclInt8, 0, world_[1], streams_[1]);
       }},
      {"destroyed or aborted", ncclInvalidArgument,
       [&] {
         EXPECT_EQ(ncclCommAbort(world_[2]), ncclSuccess);
         return ncclCommAbort(world_[2]);
       }},
      {"non-blocking communicators only", ncclInvalidArgument,
       [&] {
         ncclUniqueId id;
         ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
         EXPECT_EQ(ncclGetUniqueId(&id), ncclSuccess);
         return ncclCommInitRankConfig(&made, 1, id, 0, &config);
       }},
      {"Duplicate GPU detected", ncclInvalidUsage, [&] {
         ncclUniqueId id;
         ncclConfig_t config = NonBlocking();
         EXPECT_EQ(ncclGetUniqueId(&id), ncclSuccess);
         EXPECT_EQ(ncclCommInitRankConfig(&made, 2, id, 0, &config), ncclInProgress);
         return ncclCommInitRankConfig(&made, 2, id, 1, &config);
       }}};
  for (const Case& c : cases) {
    const int64_t before = test_->Times(ReportKind::kUsage);
    EXPECT_EQ(c.call(), c.result) << c.says;
    EXPECT_EQ(test_->Times(ReportKind::kUsage), before + 1) << c.says;
    EXPECT_THAT(machine().ReportText(), HasSubstr(c.says));
  }
}

TEST_F(NcclTest, FinalizeEndsWhenAllRanksHave) {
  Make(2);
  EXPECT_EQ(ncclCommFinalize(world_[0]), ncclInProgress);
  ncclResult_t state = ncclSuccess;
  Pass(kAWhile);
  EXPECT_EQ(ncclCommGetAsyncError(world_[0], &state), ncclSuccess);
  EXPECT_EQ(state, ncclInProgress);
  EXPECT_EQ(ncclCommFinalize(world_[1]), ncclInProgress);
  for (ncclComm_t comm : world_) {
    EXPECT_EQ(Settle(comm), ncclSuccess);
    EXPECT_EQ(ncclCommDestroy(comm), ncclSuccess);
  }
  EXPECT_EQ(machine().ReportText(), "");
}

TEST_F(NcclTest, AbortEndsWhatThisRankHasIssuedAndNothingElse) {
  Make(3);
  Recv(0, 1);
  Send(2, 1);
  Pass(kAWhile);
  EXPECT_EQ(ncclCommAbort(world_[0]), ncclSuccess);
  Pass(kAWhile);
  EXPECT_TRUE(Ended(0));
  EXPECT_FALSE(Ended(2));
  Send(1, 0);  // to who has gone
  Pass(kAWhile);
  EXPECT_FALSE(Ended(1));
  EXPECT_EQ(ncclCommAbort(world_[1]), ncclSuccess);
  Pass(kAWhile);
  EXPECT_TRUE(Ended(1));
}

// The call of rank 1 that is to go wrong: what comes after joining.
NcclFault FaultOf(NcclFault::Kind kind, int64_t at = 1) { return {.kind = kind, .device = 1, .at = at}; }

TEST_F(NcclTest, OthersHearOfARankThatDiesAfterAWhile) {
  NcclFault fault = FaultOf(NcclFault::Kind::kDies);
  fault.delay = kAWhile;
  Make(3, {.nccl_faults = {fault}});
  Send(0, 1);
  EXPECT_EQ(ncclRecv(Place(1, 1), kBytes, ncclInt8, 0, world_[1], streams_[1]), ncclSystemError);
  for (const Nanoseconds wait : {kAWhile / 2, kAWhile}) {
    Pass(wait);
    for (const int rank : {0, 2}) {
      ncclResult_t state = ncclSuccess;
      EXPECT_EQ(ncclCommGetAsyncError(world_[rank], &state), ncclSuccess);
      EXPECT_EQ(state, wait == kAWhile ? ncclRemoteError : ncclSuccess);
    }
  }
  EXPECT_THAT(std::string(ncclGetLastError(world_[0])), HasSubstr("rank 1 of communicator 0"));
  EXPECT_FALSE(Ended(0));
}

TEST_F(NcclTest, NobodyHearsOfARankThatStalls) {
  Make(2, {.nccl_faults = {FaultOf(NcclFault::Kind::kStalls)}});
  Send(0, 1);
  Recv(1, 0);
  Pass(sluice::kSecond);
  EXPECT_FALSE(Ended(0) || Ended(1));
  for (ncclComm_t comm : world_) EXPECT_EQ(Settle(comm), ncclSuccess);
}

TEST_F(NcclTest, ASlowLinkTakesLonger) {
  NcclFault fault = FaultOf(NcclFault::Kind::kSlows);
  fault.factor = 1e5;  // half a second and more for some microseconds
  Make(2, {.timing = Timing::kModelled, .nccl_faults = {fault}});
  Send(0, 1);
  Recv(1, 0);
  Pass(kAWhile);
  EXPECT_FALSE(Ended(0) || Ended(1));
  Pass(sluice::kSecond);
  EXPECT_TRUE(Ended(0) && Ended(1));
}

TEST_F(NcclTest, AnErrorMayComeLate) {
  NcclFault fault = FaultOf(NcclFault::Kind::kErrs);
  fault.delay = kAWhile;
  Make(2, {.nccl_faults = {fault}});
  Send(0, 1);
  Recv(1, 0);
  Pass(kAWhile);
  EXPECT_EQ(Settle(world_[1]), ncclSystemError);
  EXPECT_EQ(Settle(world_[0]), ncclSuccess);
  EXPECT_EQ(ncclSend(Place(1, 0), kBytes, ncclInt8, 0, world_[1], streams_[1]), ncclSystemError);
}

}  // namespace
}  // namespace gpu_sim
