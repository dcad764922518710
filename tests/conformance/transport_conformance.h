// What every Transport promises (kernels/transport.h). An implementation instantiates TransportTest with its rigs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "base/philox.h"
#include "base/world.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/device.h"
#include "kernels/transport.h"

namespace sluice {

// A few ranks with their world and devices, whose endpoints the tests open.
class TransportRig {
 public:
  virtual ~TransportRig() = default;
  virtual World* world() = 0;
  virtual Device* device(WorldRank rank) = 0;
  virtual absl::StatusOr<std::unique_ptr<Transport>> Open(WorldRank rank, const std::vector<ChannelSpec>& channels,
                                                          const std::vector<GroupSpec>& groups) = 0;
};

struct TransportKind {
  std::string name;
  std::function<std::unique_ptr<TransportRig>(int ranks)> make;
};

class TransportTest : public testing::TestWithParam<TransportKind> {
 protected:
  static constexpr int64_t kWords = 16;
  static constexpr int64_t kBytes = kWords * 4;
  static constexpr Nanoseconds kAWhile = 3 * kMillisecond;

  ~TransportTest() override {
    ends_.clear();
    slots_.clear();
  }

  void Make(int ranks) {
    rig_ = nullptr;  // a thread lives in one simulated world at a time
    rig_ = GetParam().make(ranks);
  }
  World& world() { return *rig_->world(); }
  void LetTimePass() { world().SleepUntil(world().Now() + kAWhile); }

  static ChannelSpec Edge(int id, int sender, int receiver, int queue) {
    return {.id = ChannelId(id),
            .sender = WorldRank(sender),
            .receiver = WorldRank(receiver),
            .queue = QueueId(queue),
            .bytes = kBytes,
            .message = absl::StrCat("words ", sender, "->", receiver)};
  }

  static GroupSpec Pair(int queue) {
    return {.id = GroupId(0), .members = {WorldRank(0), WorldRank(1)}, .queue = QueueId(queue), .purpose = "pair"};
  }
  static TensorView Words(std::vector<int32_t>& words) {
    return {reinterpret_cast<std::byte*>(words.data()), DType::kI32, {static_cast<int64_t>(words.size())}};
  }

  // Opens the endpoints of all ranks, each with what concerns it.
  void OpenAll(int ranks, const std::vector<ChannelSpec>& channels, const std::vector<GroupSpec>& groups = {}) {
    Make(ranks);
    for (int rank = 0; rank < ranks; ++rank) {
      std::vector<ChannelSpec> mine;
      for (const ChannelSpec& spec : channels) {
        if (spec.sender.value() == rank || spec.receiver.value() == rank) mine.push_back(spec);
      }
      std::vector<GroupSpec> my_groups;
      for (const GroupSpec& spec : groups) {
        if (std::count(spec.members.begin(), spec.members.end(), WorldRank(rank)) > 0) my_groups.push_back(spec);
      }
      auto end = rig_->Open(WorldRank(rank), mine, my_groups);
      ASSERT_TRUE(end.ok()) << end.status();
      ends_.push_back(*std::move(end));
    }
  }

  Slot* NewSlot(int rank, int32_t fill = -1) {
    auto slot = std::make_unique<Slot>();
    auto buffer = rig_->device(WorldRank(rank))->Allocate(kBytes, "slot");
    EXPECT_TRUE(buffer.ok());
    slot->buffer = *std::move(buffer);
    Fill(slot.get(), fill);
    std::lock_guard lock(slots_mutex_);
    slots_.push_back(std::move(slot));
    return slots_.back().get();
  }
  static void Fill(Slot* slot, int32_t value) {
    for (int64_t i = 0; i < kWords; ++i)
      reinterpret_cast<int32_t*>(slot->buffer.data())[i] = value + static_cast<int32_t>(i);
  }
  static bool Holds(const Slot* slot, int32_t value) {
    for (int64_t i = 0; i < kWords; ++i) {
      if (reinterpret_cast<const int32_t*>(slot->buffer.data())[i] != value + static_cast<int32_t>(i)) return false;
    }
    return true;
  }

  // Runs body(rank) as one task a rank and waits for all.
  void RunRanks(int ranks, const std::function<void(int rank)>& body) {
    std::vector<EventRef> tasks;
    for (int rank = 0; rank < ranks; ++rank) {
      tasks.push_back(world().Spawn({.name = absl::StrCat("rank", rank)}, [&body, rank] { body(rank); }));
    }
    for (const EventRef& task : tasks) ASSERT_TRUE(world().Wait(task).ok());
  }
  Ref<Signal> NewSignal() { return MakeRef<Signal>(); }
  void Set(const Ref<Signal>& signal, absl::Status status = absl::OkStatus()) {
    signal->Set(std::move(status), world().Now());
  }

  std::unique_ptr<TransportRig> rig_;
  std::vector<std::unique_ptr<Transport>> ends_;
  std::mutex slots_mutex_;  // ranks make their own slots
  std::vector<std::unique_ptr<Slot>> slots_;
};

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
    EXPECT_GE(event->began(), posted) << "it begins when both ends are ready";
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

TEST_P(TransportTest, AGatherPutsAllPartsInTheGroupsOrder) {
  const GroupSpec group{.id = GroupId(0),
                        .members = {WorldRank(2), WorldRank(0), WorldRank(1)},
                        .queue = QueueId(1),
                        .purpose = "parts of different size"};
  OpenAll(3, {}, {group});
  constexpr int kRounds = 10;
  RunRanks(3, [&](int rank) {
    for (int round = 0; round < kRounds; ++round) {
      std::vector<int32_t> mine(rank + 1, 10 * round + rank), all(6, -1);  // 3 + 1 + 2 words
      const TensorView part{reinterpret_cast<std::byte*>(mine.data()), DType::kI32, {rank + 1}};
      const TensorView whole{reinterpret_cast<std::byte*>(all.data()), DType::kI32, {6}};
      ASSERT_TRUE(world().Wait(ends_[rank]->AllGather(GroupId(0), part, whole, DoneEvent())).ok());
      const int32_t r = 10 * round;
      EXPECT_EQ(all, (std::vector<int32_t>{r + 2, r + 2, r + 2, r, r + 1, r + 1}));
    }
  });
}

TEST_P(TransportTest, AGatherWaitsForAllMembersAndForItsTurn) {
  const GroupSpec group{
      .id = GroupId(0), .members = {WorldRank(0), WorldRank(1)}, .queue = QueueId(1), .purpose = "pair"};
  OpenAll(2, {Edge(0, 0, 1, 1)}, {group});
  int32_t mine[2] = {5, 6}, all[2][2] = {};
  const auto gather = [&](int rank, const EventRef& after) {
    return ends_[rank]->AllGather(GroupId(0), {reinterpret_cast<std::byte*>(&mine[rank]), DType::kI32, {1}},
                                  {reinterpret_cast<std::byte*>(all[rank]), DType::kI32, {2}}, after);
  };
  auto ready = NewSignal();
  const EventRef sent = ends_[0]->Send(ChannelId(0), NewSlot(0, 1), DoneEvent());
  const EventRef gathered[2] = {gather(0, DoneEvent()), nullptr};
  Slot* target = NewSlot(1);
  const EventRef received = ends_[1]->Recv(ChannelId(0), target, ready);
  const EventRef last = gather(1, DoneEvent());
  LetTimePass();
  EXPECT_FALSE(gathered[0]->Done() || last->Done()) << "a transfer stands before it in the queue";
  Set(ready);
  for (const EventRef& event : {sent, received, gathered[0], last}) ASSERT_TRUE(world().Wait(event).ok());
  for (int rank : {0, 1}) {
    EXPECT_EQ(all[rank][0], 5);
    EXPECT_EQ(all[rank][1], 6);
  }
}

// Each member's part for each other one is filled with a number of their pair and the round.
TEST_P(TransportTest, AnAllToAllGivesEachMemberItsPartOfAllInTheGroupsOrder) {
  const GroupSpec group{.id = GroupId(0),
                        .members = {WorldRank(2), WorldRank(0), WorldRank(1)},
                        .queue = QueueId(1),
                        .purpose = "unequal parts"};
  const std::vector<std::vector<int64_t>> splits = {{12, 4, 8}, {4, 0, 16}, {0, 0, 0}, {8, 8, 8}};
  OpenAll(3, {}, {group});
  RunRanks(3, [&](int rank) {
    const int place = rank == 2 ? 0 : rank + 1;
    const auto word = [](size_t round, int from, int to) { return static_cast<int32_t>(100 * round + 10 * from + to); };
    for (size_t round = 0; round < splits.size(); ++round) {
      const std::vector<int64_t>& parts = splits[round];
      std::vector<int32_t> mine, wanted;
      for (int other = 0; other < 3; ++other) {
        mine.insert(mine.end(), parts[other] / 4, word(round, place, other));
        wanted.insert(wanted.end(), parts[place] / 4, word(round, other, place));
      }
      std::vector<int32_t> all(wanted.size(), -1);
      const EventRef done = ends_[rank]->AllToAll(GroupId(0), Words(mine), parts, Words(all), DoneEvent());
      ASSERT_TRUE(world().Wait(done).ok());
      EXPECT_EQ(all, wanted) << "round " << round;
    }
  });
}

// Each group in a queue of its own, all posted at once, in an order of each rank's own.
TEST_P(TransportTest, CollectivesOfSeveralGroupsRunAtOnceAndDoNotMix) {
  constexpr int kRanks = 4, kRounds = 6;
  std::vector<GroupSpec> groups;
  for (int a = 0; a < kRanks; ++a) {
    for (int b = a + 1; b < kRanks; ++b) {
      groups.push_back({.id = GroupId(groups.size()),
                        .members = {WorldRank(b), WorldRank(a)},
                        .queue = QueueId(groups.size()),
                        .purpose = absl::StrCat("pair ", a, " ", b)});
    }
  }
  OpenAll(kRanks, {}, groups);
  const std::vector<int64_t> parts = {4, 12};
  RunRanks(kRanks, [&](int rank) {
    struct Exchange {
      std::vector<int32_t> mine, all, wanted;
      EventRef done;
    };
    std::vector<Exchange> exchanges;
    exchanges.reserve(groups.size() * kRounds);
    for (size_t i = 0; i < groups.size() * kRounds; ++i) {
      const size_t g = (i * 5 + rank) % groups.size();  // 5 and 6 have no common divisor: each group once a round
      const auto& members = groups[g].members;
      const size_t place = members[0].value() == rank ? 0 : 1;
      if (members[place].value() != rank) continue;
      const auto word = [&](int from) { return static_cast<int32_t>(1000 * g + 100 * (i / groups.size()) + from); };
      Exchange& exchange = exchanges.emplace_back();
      exchange.mine.assign(4, word(rank));
      for (WorldRank from : members)
        exchange.wanted.insert(exchange.wanted.end(), parts[place] / 4, word(from.value()));
      exchange.all.assign(exchange.wanted.size(), -1);
      exchange.done =
          ends_[rank]->AllToAll(groups[g].id, Words(exchange.mine), parts, Words(exchange.all), DoneEvent());
    }
    for (const Exchange& exchange : exchanges) {
      ASSERT_TRUE(world().Wait(exchange.done).ok());
      EXPECT_EQ(exchange.all, exchange.wanted);
    }
  });
}

// Sizes from nothing to several pieces, drawn alike by all ranks; what must arrive is computed from who gave it.
TEST_P(TransportTest, CollectivesOfAnySizeBringEachWordToItsPlace) {
  constexpr int kRanks = 4, kRounds = 6;
  const GroupSpec group{.id = GroupId(0),
                        .members = {WorldRank(1), WorldRank(3), WorldRank(0), WorldRank(2)},
                        .queue = QueueId(1),
                        .purpose = "all"};
  constexpr int64_t kSizes[] = {0, 1, 700, 1024, 20'000, 600'000};
  const auto word = [](int round, int from, int to, int64_t i) {
    return static_cast<int32_t>(MixBits(1000 * round + 100 * from + 10 * to) + static_cast<uint64_t>(i));
  };
  OpenAll(kRanks, {}, {group});
  RunRanks(kRanks, [&](int rank) {
    const int place = std::find(group.members.begin(), group.members.end(), WorldRank(rank)) - group.members.begin();
    for (int round = 0; round < kRounds; ++round) {
      std::vector<int64_t> words(kRanks), parts;
      for (int k = 0; k < kRanks; ++k) words[k] = kSizes[MixBits(10 * round + k) % std::size(kSizes)];
      std::vector<int32_t> given, to_each, gathered, wanted_gathered, exchanged, wanted_exchanged;
      for (int64_t i = 0; i < words[place]; ++i) given.push_back(word(round, place, 9, i));
      for (int k = 0; k < kRanks; ++k) {
        parts.push_back(4 * words[k]);
        for (int64_t i = 0; i < words[k]; ++i) wanted_gathered.push_back(word(round, k, 9, i));
        for (int64_t i = 0; i < words[k]; ++i) to_each.push_back(word(round, place, k, i));
        for (int64_t i = 0; i < words[place]; ++i) wanted_exchanged.push_back(word(round, k, place, i));
      }
      gathered.resize(wanted_gathered.size());
      exchanged.resize(wanted_exchanged.size());
      const EventRef events[2] = {
          ends_[rank]->AllGather(GroupId(0), Words(given), Words(gathered), DoneEvent()),
          ends_[rank]->AllToAll(GroupId(0), Words(to_each), parts, Words(exchanged), DoneEvent())};
      for (const EventRef& event : events) ASSERT_TRUE(world().Wait(event).ok()) << event->status();
      EXPECT_TRUE(gathered == wanted_gathered) << "round " << round;
      EXPECT_TRUE(exchanged == wanted_exchanged) << "round " << round;
    }
  });
}

TEST_P(TransportTest, CollectivesAndTransfersOfOneQueueKeepTheirPostingOrder) {
  OpenAll(2, {Edge(0, 0, 1, 4)}, {Pair(4)});
  std::vector<int32_t> mine[2] = {{1, 2}, {3, 4}}, all[2] = {{0, 0}, {0, 0}}, both[2] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
  const std::vector<int64_t> parts = {4, 4};
  auto ready = NewSignal();
  std::vector<EventRef> first, later;
  Slot* target = NewSlot(1);
  for (int rank : {0, 1}) {
    first.push_back(
        ends_[rank]->AllToAll(GroupId(0), Words(mine[rank]), parts, Words(all[rank]), rank == 0 ? ready : DoneEvent()));
    later.push_back(rank == 0 ? ends_[0]->Send(ChannelId(0), NewSlot(0, 8), DoneEvent())
                              : ends_[1]->Recv(ChannelId(0), target, DoneEvent()));
    later.push_back(ends_[rank]->AllGather(GroupId(0), Words(all[rank]), Words(both[rank]), DoneEvent()));
  }
  LetTimePass();
  for (const EventRef& event : first) EXPECT_FALSE(event->Done());
  for (const EventRef& event : later) EXPECT_FALSE(event->Done()) << "the all-to-all stands before it in the queue";
  Set(ready);
  for (const auto& events : {first, later}) {
    for (const EventRef& event : events) ASSERT_TRUE(world().Wait(event).ok());
  }
  EXPECT_TRUE(Holds(target, 8));
  for (int rank : {0, 1}) EXPECT_EQ(both[rank], (std::vector<int32_t>{1, 3, 2, 4}));
}

TEST_P(TransportTest, AnErrorOfWhatAnAllToAllWaitsForEndsItForAllMembers) {
  OpenAll(2, {}, {Pair(1)});
  std::vector<int32_t> mine[2] = {{1, 2}, {3, 4}}, all[2] = {{0, 0}, {0, 0}};
  const std::vector<int64_t> parts = {4, 4};
  auto computed = NewSignal();
  const EventRef events[2] = {ends_[0]->AllToAll(GroupId(0), Words(mine[0]), parts, Words(all[0]), DoneEvent()),
                              ends_[1]->AllToAll(GroupId(0), Words(mine[1]), parts, Words(all[1]), computed)};
  LetTimePass();
  Set(computed, absl::DataLossError("layer 3 went wrong"));
  for (const EventRef& event : events) {
    const absl::Status status = world().Wait(event);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("layer 3 went wrong"));
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("rank 1"));
  }
}

TEST_P(TransportTest, CollectivesWhoseMembersDisagreeAreAnErrorForAllOfThem) {
  struct End {
    int words_mine, words_all;
    std::vector<int64_t> parts;
  };
  const End fine{.words_mine = 3, .words_all = 2, .parts = {4, 8}};  // at place 0 of a pair
  struct Case {
    End other;
    std::string says;
  };
  const std::vector<Case> cases = {{{3, 4, {8, 4}}, "must name the same parts"},
                                   {{3, 4, {4, 4, 4}}, "must name the same parts"},
                                   {{2, 4, {4, 8}}, "rank 1 gives 8 of 12 bytes"},
                                   {{3, 3, {4, 8}}, "rank 1 has room for 12 of 16 bytes"},
                                   {{3, 6, {}}, "differ"}};  // a gather
  for (const Case& c : cases) {
    OpenAll(2, {}, {Pair(1)});
    std::vector<EventRef> events;
    std::vector<int32_t> mine[2], all[2];
    for (int rank : {0, 1}) {
      const End& end = rank == 0 ? fine : c.other;
      mine[rank].resize(end.words_mine);
      all[rank].resize(end.words_all);
      events.push_back(
          end.parts.empty()
              ? ends_[rank]->AllGather(GroupId(0), Words(mine[rank]), Words(all[rank]), DoneEvent())
              : ends_[rank]->AllToAll(GroupId(0), Words(mine[rank]), end.parts, Words(all[rank]), DoneEvent()));
    }
    for (const EventRef& event : events) {
      const absl::Status status = world().Wait(event);
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
      EXPECT_THAT(std::string(status.message()), testing::HasSubstr(c.says));
    }
    ends_.clear();
  }
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
  int32_t word = 0, words[3] = {}, more[3] = {};
  const TensorView one{reinterpret_cast<std::byte*>(&word), DType::kI32, {1}};
  const TensorView three{reinterpret_cast<std::byte*>(words), DType::kI32, {3}};
  const TensorView three_more{reinterpret_cast<std::byte*>(more), DType::kI32, {3}};
  const std::vector<int64_t> parts = {4, 4, 4};
  auto never = NewSignal();
  std::vector<EventRef> events = {
      ends_[0]->Send(ChannelId(0), NewSlot(0), never), ends_[1]->Recv(ChannelId(0), NewSlot(1), DoneEvent()),
      ends_[1]->Send(ChannelId(1), NewSlot(1), DoneEvent()), ends_[2]->AllGather(GroupId(0), one, three, DoneEvent()),
      ends_[1]->AllToAll(GroupId(0), three, parts, three_more, DoneEvent())};
  LetTimePass();
  ends_[1]->Abort(absl::AbortedError("rank 1 saw smoke"));
  world().Wait(events[3]).IgnoreError();  // rank 2 has been told
  ends_[2]->Abort(absl::InternalError("a later cause"));
  events.push_back(ends_[0]->AllGather(GroupId(0), one, three, DoneEvent()));
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
