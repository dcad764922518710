// What every Transport promises (kernels/transport.h). An implementation instantiates TransportTest with its rigs.
#pragma once

#include "tests/conformance/collective_conformance.h"
#include "tests/conformance/transport_test_base.h"

namespace sluice {

TEST_P(TransportTest, MessagesArriveInPostingOrderWithTheirContents) {
  constexpr int kMessages = 40;
  OpenAll(2, {Edge(0, 0, 1, 2)});
  RunRanks(2, [&](int rank) {
    Slot* slots[2] = {nullptr, nullptr};
    EventRef used[2] = {DoneEvent(), DoneEvent()};
    for (int i = 0; i < kMessages; ++i) {
      Slot*& slot = slots[i % 2];
      if (slot == nullptr) slot = NewSlot(rank);
      ASSERT_TRUE(world().Wait(used[i % 2]).ok());
      if (rank == 0) {
        Fill(slot, i * 100);
        used[i % 2] = ends_[0]->Send(ChannelId(0), slot, DoneEvent());
      } else {
        ASSERT_TRUE(world().Wait(ends_[1]->Recv(ChannelId(0), slot, DoneEvent())).ok());
        EXPECT_TRUE(Holds(slot, i * 100)) << "message " << i;
      }
    }
    for (const EventRef& event : used) ASSERT_TRUE(world().Wait(event).ok());
  });
}

TEST_P(TransportTest, ASendEndsOnlyTogetherWithItsReceive) {
  OpenAll(2, {Edge(0, 0, 1, 0)});
  const EventRef sent = ends_[0]->Send(ChannelId(0), NewSlot(0, 7), DoneEvent());
  LetTimePass();
  EXPECT_FALSE(sent->Done());
  Slot* target = NewSlot(1);
  const Nanoseconds posted = world().Now();
  const EventRef received = ends_[1]->Recv(ChannelId(0), target, DoneEvent());
  ASSERT_TRUE(world().Wait(received).ok());
  ASSERT_TRUE(world().Wait(sent).ok());
  EXPECT_TRUE(Holds(target, 7));
  for (const EventRef& event : {sent, received}) {
    if (rig_->sees_both_ends()) EXPECT_GE(event->began(), posted) << "it begins when both ends are ready";
    EXPECT_GE(event->ended(), event->began());
  }
}

TEST_P(TransportTest, AReceiveMayBePostedFirst) {
  OpenAll(2, {Edge(0, 0, 1, 0)});
  Slot* target = NewSlot(1);
  const EventRef received = ends_[1]->Recv(ChannelId(0), target, DoneEvent());
  LetTimePass();
  EXPECT_FALSE(received->Done());
  ASSERT_TRUE(world().Wait(ends_[0]->Send(ChannelId(0), NewSlot(0, 9), DoneEvent())).ok());
  ASSERT_TRUE(world().Wait(received).ok());
  EXPECT_TRUE(Holds(target, 9));
}

TEST_P(TransportTest, ASendWaitsForItsMessageToBeWritten) {
  OpenAll(2, {Edge(0, 0, 1, 0)});
  Slot* source = NewSlot(0);
  Slot* target = NewSlot(1);
  auto written = NewSignal();
  const EventRef sent = ends_[0]->Send(ChannelId(0), source, written);
  const EventRef received = ends_[1]->Recv(ChannelId(0), target, DoneEvent());
  LetTimePass();
  EXPECT_FALSE(sent->Done() || received->Done());
  Fill(source, 21);
  Set(written);
  ASSERT_TRUE(world().Wait(received).ok());
  EXPECT_TRUE(Holds(target, 21));
}

TEST_P(TransportTest, AReceiveWaitsForItsSlotToBeFree) {
  OpenAll(2, {Edge(0, 0, 1, 0)});
  Slot* target = NewSlot(1, 5);
  auto free = NewSignal();
  const EventRef sent = ends_[0]->Send(ChannelId(0), NewSlot(0, 3), DoneEvent());
  const EventRef received = ends_[1]->Recv(ChannelId(0), target, free);
  LetTimePass();
  EXPECT_FALSE(sent->Done() || received->Done());
  EXPECT_TRUE(Holds(target, 5));
  Set(free);
  ASSERT_TRUE(world().Wait(received).ok());
  EXPECT_TRUE(Holds(target, 3));
}

TEST_P(TransportTest, OperationsOfOneQueueKeepTheirPostingOrder) {
  OpenAll(2, {Edge(0, 0, 1, 4), Edge(1, 0, 1, 4)});
  auto first_written = NewSignal();
  Slot* targets[2] = {NewSlot(1), NewSlot(1)};
  const EventRef first = ends_[0]->Send(ChannelId(0), NewSlot(0, 1), first_written);
  const EventRef second = ends_[0]->Send(ChannelId(1), NewSlot(0, 2), DoneEvent());
  const EventRef received[2] = {ends_[1]->Recv(ChannelId(0), targets[0], DoneEvent()),
                                ends_[1]->Recv(ChannelId(1), targets[1], DoneEvent())};
  LetTimePass();
  EXPECT_FALSE(second->Done() || received[1]->Done()) << "the first in the queue is not done";
  Set(first_written);
  for (const EventRef& event : {first, second, received[0], received[1]}) ASSERT_TRUE(world().Wait(event).ok());
  EXPECT_TRUE(Holds(targets[0], 1));
  EXPECT_TRUE(Holds(targets[1], 2));
}

// The order of a queue is strict: what a schedule's verifier calls a deadlock stands still here too, until it is
// aborted.
TEST_P(TransportTest, CrossedOrdersInOneQueueStandStill) {
  OpenAll(2, {Edge(0, 0, 1, 4), Edge(1, 0, 1, 4)});
  const std::vector<EventRef> events = {
      ends_[0]->Send(ChannelId(0), NewSlot(0), DoneEvent()), ends_[0]->Send(ChannelId(1), NewSlot(0), DoneEvent()),
      ends_[1]->Recv(ChannelId(1), NewSlot(1), DoneEvent()), ends_[1]->Recv(ChannelId(0), NewSlot(1), DoneEvent())};
  LetTimePass();
  for (const EventRef& event : events) EXPECT_FALSE(event->Done());
  ends_[0]->Abort(absl::CancelledError("enough"));
  for (const EventRef& event : events) EXPECT_EQ(world().Wait(event).code(), absl::StatusCode::kCancelled);
}

TEST_P(TransportTest, QueuesDoNotWaitForOneAnother) {
  OpenAll(2, {Edge(0, 0, 1, 4), Edge(1, 0, 1, 5), Edge(2, 1, 0, 6)});
  auto never = NewSignal();
  const EventRef stuck = ends_[0]->Send(ChannelId(0), NewSlot(0), never);
  ends_[1]->Recv(ChannelId(0), NewSlot(1), DoneEvent());
  Slot* there = NewSlot(1);
  Slot* back = NewSlot(0);
  ends_[0]->Send(ChannelId(1), NewSlot(0, 11), DoneEvent());
  ends_[1]->Send(ChannelId(2), NewSlot(1, 12), DoneEvent());
  ASSERT_TRUE(world().Wait(ends_[1]->Recv(ChannelId(1), there, DoneEvent())).ok());
  ASSERT_TRUE(world().Wait(ends_[0]->Recv(ChannelId(2), back, DoneEvent())).ok());
  EXPECT_TRUE(Holds(there, 11));
  EXPECT_TRUE(Holds(back, 12));
  EXPECT_FALSE(stuck->Done());
  ends_[0]->Abort(absl::CancelledError("the end"));
}

// Every pair of ranks, both directions, own queues; each rank posts all at once, in an order of its own.
TEST_P(TransportTest, ManyChannelsAtOnceDoNotMix) {
  constexpr int kRanks = 4, kMessages = 12;
  std::vector<ChannelSpec> channels;
  for (int from = 0; from < kRanks; ++from) {
    for (int to = 0; to < kRanks; ++to) {
      if (from != to) channels.push_back(Edge(channels.size(), from, to, 10 + channels.size()));
    }
  }
  OpenAll(kRanks, channels);
  std::vector<std::vector<Slot*>> sources(channels.size()), targets(channels.size());
  for (size_t c = 0; c < channels.size(); ++c) {
    for (int i = 0; i < kMessages; ++i) {
      sources[c].push_back(NewSlot(channels[c].sender.value()));
      targets[c].push_back(NewSlot(channels[c].receiver.value()));
    }
  }
  RunRanks(kRanks, [&](int rank) {
    std::vector<EventRef> events;
    std::vector<int> next(channels.size(), 0);
    uint64_t random = 77 + rank;
    for (int left = 2 * (kRanks - 1) * kMessages; left > 0;) {
      random = MixBits(random);
      const size_t c = random % channels.size();
      const ChannelSpec& spec = channels[c];
      const bool sends = spec.sender.value() == rank;
      if ((!sends && spec.receiver.value() != rank) || next[c] == kMessages) continue;
      const int i = next[c]++;
      --left;
      if (sends) Fill(sources[c][i], static_cast<int32_t>(1000 * c + 50 * i));
      events.push_back(sends ? ends_[rank]->Send(spec.id, sources[c][i], DoneEvent())
                             : ends_[rank]->Recv(spec.id, targets[c][i], DoneEvent()));
      if (random % 5 == 0) world().WaitAny({}, world().Now() + 10 * kMicrosecond);
    }
    for (const EventRef& event : events) ASSERT_TRUE(world().Wait(event).ok());
  });
  for (size_t c = 0; c < channels.size(); ++c) {
    for (int i = 0; i < kMessages; ++i) EXPECT_TRUE(Holds(targets[c][i], static_cast<int32_t>(1000 * c + 50 * i)));
  }
}

// A pipeline's traffic: each rank passes on what it got, through two slots each, so slots travel.
TEST_P(TransportTest, MessagesPassAlongAChainOfRanks) {
  constexpr int kRanks = 4, kMessages = 60;
  std::vector<ChannelSpec> channels;
  for (int rank = 0; rank + 1 < kRanks; ++rank) channels.push_back(Edge(rank, rank, rank + 1, 2));
  OpenAll(kRanks, channels);
  RunRanks(kRanks, [&](int rank) {
    Slot* slots[2] = {NewSlot(rank), NewSlot(rank)};
    EventRef used[2] = {DoneEvent(), DoneEvent()};
    for (int i = 0; i < kMessages; ++i) {
      Slot* slot = slots[i % 2];
      if (rank > 0) {
        const EventRef received = ends_[rank]->Recv(ChannelId(rank - 1), slot, used[i % 2]);
        ASSERT_TRUE(world().Wait(received).ok());
        EXPECT_TRUE(Holds(slot, 1000 * i + rank - 1)) << "message " << i << " at rank " << rank;
      } else {
        ASSERT_TRUE(world().Wait(used[i % 2]).ok());
      }
      Fill(slot, 1000 * i + rank);
      used[i % 2] = rank + 1 < kRanks ? ends_[rank]->Send(ChannelId(rank), slot, DoneEvent()) : DoneEvent();
    }
    for (const EventRef& event : used) ASSERT_TRUE(world().Wait(event).ok());
  });
}

TEST_P(TransportTest, AnErrorOfWhatASendWaitsForEndsItAndAllLaterOperations) {
  OpenAll(2, {Edge(0, 0, 1, 2), Edge(1, 1, 0, 3)});
  auto computed = NewSignal();
  const EventRef sent = ends_[0]->Send(ChannelId(0), NewSlot(0), computed);
  const EventRef received = ends_[1]->Recv(ChannelId(0), NewSlot(1), DoneEvent());
  const EventRef other = ends_[0]->Recv(ChannelId(1), NewSlot(0), DoneEvent());
  Set(computed, absl::DataLossError("layer 3 went wrong"));
  for (const EventRef& event : {sent, received, other}) {
    const absl::Status status = world().Wait(event);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("layer 3 went wrong"));
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("rank 0"));
  }
  EXPECT_EQ(world().Wait(ends_[0]->Send(ChannelId(0), NewSlot(0), DoneEvent())).code(), absl::StatusCode::kDataLoss);
}

TEST_P(TransportTest, AbortCompletesPendingAndLaterOperationsOfAllWithTheFirstCause) {
  const GroupSpec group{
      .id = GroupId(0), .members = {WorldRank(0), WorldRank(1), WorldRank(2)}, .queue = QueueId(1), .purpose = "norm"};
  OpenAll(3, {Edge(0, 0, 1, 2), Edge(1, 1, 2, 2)}, {group});
  const Words one = OnDevice(2, {0}), three = OnDevice(2, {0, 0, 0});
  const Words mine = OnDevice(1, {0, 0, 0}), all = OnDevice(1, {0, 0, 0});
  const Words last_one = OnDevice(0, {0}), last_three = OnDevice(0, {0, 0, 0});
  const std::vector<int64_t> parts = {4, 4, 4};
  auto never = NewSignal();
  std::vector<EventRef> events = {
      ends_[0]->Send(ChannelId(0), NewSlot(0), never), ends_[1]->Recv(ChannelId(0), NewSlot(1), DoneEvent()),
      ends_[1]->Send(ChannelId(1), NewSlot(1), DoneEvent()), ends_[2]->AllGather(GroupId(0), one.view, {}, three.view, DoneEvent()),
      ends_[1]->AllToAll(GroupId(0), mine.view, parts, all.view, DoneEvent())};
  LetTimePass();
  ends_[1]->Abort(absl::AbortedError("rank 1 saw smoke"));
  world().Wait(events[3]).IgnoreError();  // rank 2 has been told
  ends_[2]->Abort(absl::InternalError("a later cause"));
  events.push_back(ends_[0]->AllGather(GroupId(0), last_one.view, {}, last_three.view, DoneEvent()));
  events.push_back(ends_[2]->Recv(ChannelId(1), NewSlot(2), DoneEvent()));
  for (const EventRef& event : events) {
    const absl::Status status = world().Wait(event);
    EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("rank 1 saw smoke"));
  }
}

// Rank 0 aborts at some moment of the traffic; nobody hangs, and after the first error there is no success.
TEST_P(TransportTest, AbortInTheMidstOfTrafficEndsAllRanks) {
  for (int round = 0; round < 10; ++round) {
    OpenAll(3, {Edge(0, 0, 1, 2), Edge(1, 1, 2, 2), Edge(2, 2, 1, 3), Edge(3, 1, 0, 3)});
    RunRanks(3, [&](int rank) {
      Slot* forward = NewSlot(rank);
      Slot* backward = NewSlot(rank);
      bool failed = false;
      for (int i = 0; i < 200 && !failed; ++i) {
        if (rank == 0 && i == 3 + 11 * round) ends_[0]->Abort(absl::CancelledError("stop"));
        std::vector<EventRef> events;
        if (rank > 0) events.push_back(ends_[rank]->Recv(ChannelId(rank - 1), forward, DoneEvent()));
        if (rank < 2) events.push_back(ends_[rank]->Send(ChannelId(rank), forward, rank > 0 ? events[0] : DoneEvent()));
        if (rank < 2) events.push_back(ends_[rank]->Recv(ChannelId(rank == 0 ? 3 : 2), backward, DoneEvent()));
        if (rank > 0) events.push_back(ends_[rank]->Send(ChannelId(rank == 1 ? 3 : 2), backward, DoneEvent()));
        for (const EventRef& event : events) {
          const absl::Status status = world().Wait(event);
          if (!status.ok()) {
            EXPECT_EQ(status, absl::CancelledError("stop"));
            failed = true;
          }
        }
      }
      EXPECT_TRUE(failed) << "rank " << rank;
    });
    ends_.clear();
    slots_.clear();
  }
}

TEST_P(TransportTest, EndsThatDescribeAChannelDifferentlyAreRefusedWithBothDescriptions) {
  const ChannelSpec agreed = Edge(0, 0, 1, 2);
  std::vector<ChannelSpec> others(3, agreed);
  others[0].bytes = 2 * kBytes;
  others[1].message = "words, but in bf16";
  others[2].queue = QueueId(3);
  for (const ChannelSpec& other : others) {
    Make(2);
    auto first = rig_->Open(WorldRank(0), {agreed}, {});
    ASSERT_TRUE(first.ok()) << first.status();
    const EventRef pending = (*first)->Send(ChannelId(0), NewSlot(0), DoneEvent());
    const auto second = rig_->Open(WorldRank(1), {other}, {});
    ASSERT_EQ(second.status().code(), absl::StatusCode::kInvalidArgument);
    const std::string message(second.status().message());
    for (const ChannelSpec& spec : {agreed, other}) {
      EXPECT_THAT(message, testing::HasSubstr(spec.message));
      EXPECT_THAT(message, testing::HasSubstr(absl::StrCat("queue ", spec.queue.value())));
      EXPECT_THAT(message, testing::HasSubstr(absl::StrCat(spec.bytes, " bytes")));
    }
    EXPECT_EQ(world().Wait(pending).code(), absl::StatusCode::kInvalidArgument);
    first->reset();
    slots_.clear();
  }
}

TEST_P(TransportTest, AChannelOrGroupThatOnlyOneEndHasIsRefused) {
  const GroupSpec pair{
      .id = GroupId(0), .members = {WorldRank(0), WorldRank(1)}, .queue = QueueId(1), .purpose = "pair"};
  GroupSpec turned = pair;
  std::swap(turned.members[0], turned.members[1]);
  struct Case {
    std::vector<ChannelSpec> channels[2];
    std::vector<GroupSpec> groups[2];
  };
  const std::vector<Case> cases = {{.channels = {{Edge(0, 0, 1, 2)}, {}}},
                                   {.channels = {{}, {Edge(0, 0, 1, 2)}}},
                                   {.groups = {{pair}, {}}},
                                   {.groups = {{pair}, {turned}}}};
  for (const Case& c : cases) {
    Make(2);
    auto first = rig_->Open(WorldRank(0), c.channels[0], c.groups[0]);
    ASSERT_TRUE(first.ok()) << first.status();
    EXPECT_EQ(rig_->Open(WorldRank(1), c.channels[1], c.groups[1]).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace sluice
