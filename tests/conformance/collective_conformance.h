// What the collectives of every Transport promise; part of transport_conformance.h.
#pragma once

#include "tests/conformance/transport_test_base.h"

namespace sluice {

TEST_P(TransportTest, AGatherPutsAllPartsInTheGroupsOrder) {
  const GroupSpec group{.id = GroupId(0),
                        .members = {WorldRank(2), WorldRank(0), WorldRank(1)},
                        .queue = QueueId(1),
                        .purpose = "parts of different size"};
  OpenAll(3, {}, {group});
  constexpr int kRounds = 10;
  const std::vector<int64_t> parts = {12, 4, 8};
  RunRanks(3, [&](int rank) {
    for (int round = 0; round < kRounds; ++round) {
      const Words mine = OnDevice(rank, std::vector<int32_t>(rank + 1, 10 * round + rank));  // 3 + 1 + 2 words
      const Words all = OnDevice(rank, std::vector<int32_t>(6, -1));
      ASSERT_TRUE(world().Wait(ends_[rank]->AllGather(GroupId(0), mine.view, parts, all.view, DoneEvent())).ok());
      const int32_t r = 10 * round;
      EXPECT_EQ(ToHost(rank, all), (std::vector<int32_t>{r + 2, r + 2, r + 2, r, r + 1, r + 1}));
    }
  });
}

TEST_P(TransportTest, AGatherWaitsForAllMembersAndForItsTurn) {
  const GroupSpec group{
      .id = GroupId(0), .members = {WorldRank(0), WorldRank(1)}, .queue = QueueId(1), .purpose = "pair"};
  OpenAll(2, {Edge(0, 0, 1, 1)}, {group});
  const Words mine[2] = {OnDevice(0, {5}), OnDevice(1, {6})}, all[2] = {OnDevice(0, {0, 0}), OnDevice(1, {0, 0})};
  const auto gather = [&](int rank, const EventRef& after) {
    return ends_[rank]->AllGather(GroupId(0), mine[rank].view, {}, all[rank].view, after);
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
  for (int rank : {0, 1}) EXPECT_EQ(ToHost(rank, all[rank]), (std::vector<int32_t>{5, 6}));
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
      const Words given = OnDevice(rank, mine), all = OnDevice(rank, std::vector<int32_t>(wanted.size(), -1));
      const EventRef done = ends_[rank]->AllToAll(GroupId(0), given.view, parts, all.view, DoneEvent());
      ASSERT_TRUE(world().Wait(done).ok());
      EXPECT_EQ(ToHost(rank, all), wanted) << "round " << round;
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
      Words mine, all;
      std::vector<int32_t> wanted;
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
      exchange.mine = OnDevice(rank, std::vector<int32_t>(4, word(rank)));
      for (WorldRank from : members)
        exchange.wanted.insert(exchange.wanted.end(), parts[place] / 4, word(from.value()));
      exchange.all = OnDevice(rank, std::vector<int32_t>(exchange.wanted.size(), -1));
      exchange.done =
          ends_[rank]->AllToAll(groups[g].id, exchange.mine.view, parts, exchange.all.view, DoneEvent());
    }
    for (const Exchange& exchange : exchanges) {
      ASSERT_TRUE(world().Wait(exchange.done).ok());
      EXPECT_EQ(ToHost(rank, exchange.all), exchange.wanted);
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
      std::vector<int32_t> given, to_each, wanted_gathered, wanted_exchanged;
      for (int64_t i = 0; i < words[place]; ++i) given.push_back(word(round, place, 9, i));
      for (int k = 0; k < kRanks; ++k) {
        parts.push_back(4 * words[k]);
        for (int64_t i = 0; i < words[k]; ++i) wanted_gathered.push_back(word(round, k, 9, i));
        for (int64_t i = 0; i < words[k]; ++i) to_each.push_back(word(round, place, k, i));
        for (int64_t i = 0; i < words[place]; ++i) wanted_exchanged.push_back(word(round, k, place, i));
      }
      const Words mine[2] = {OnDevice(rank, given), OnDevice(rank, to_each)};
      const Words gathered = OnDevice(rank, std::vector<int32_t>(wanted_gathered.size(), -1));
      const Words exchanged = OnDevice(rank, std::vector<int32_t>(wanted_exchanged.size(), -1));
      const EventRef events[2] = {
          ends_[rank]->AllGather(GroupId(0), mine[0].view, parts, gathered.view, DoneEvent()),
          ends_[rank]->AllToAll(GroupId(0), mine[1].view, parts, exchanged.view, DoneEvent())};
      for (const EventRef& event : events) ASSERT_TRUE(world().Wait(event).ok()) << event->status();
      EXPECT_TRUE(ToHost(rank, gathered) == wanted_gathered) << "round " << round;
      EXPECT_TRUE(ToHost(rank, exchanged) == wanted_exchanged) << "round " << round;
    }
  });
}

TEST_P(TransportTest, CollectivesAndTransfersOfOneQueueKeepTheirPostingOrder) {
  OpenAll(2, {Edge(0, 0, 1, 4)}, {Pair(4)});
  const Words mine[2] = {OnDevice(0, {1, 2}), OnDevice(1, {3, 4})}, all[2] = {OnDevice(0, {0, 0}), OnDevice(1, {0, 0})};
  const Words both[2] = {OnDevice(0, {0, 0, 0, 0}), OnDevice(1, {0, 0, 0, 0})};
  const std::vector<int64_t> parts = {4, 4};
  auto ready = NewSignal();
  std::vector<EventRef> first, later;
  Slot* target = NewSlot(1);
  for (int rank : {0, 1}) {
    first.push_back(
        ends_[rank]->AllToAll(GroupId(0), mine[rank].view, parts, all[rank].view, rank == 0 ? ready : DoneEvent()));
    later.push_back(rank == 0 ? ends_[0]->Send(ChannelId(0), NewSlot(0, 8), DoneEvent())
                              : ends_[1]->Recv(ChannelId(0), target, DoneEvent()));
    later.push_back(ends_[rank]->AllGather(GroupId(0), all[rank].view, {}, both[rank].view, DoneEvent()));
  }
  LetTimePass();
  for (const EventRef& event : first) EXPECT_FALSE(event->Done());
  for (const EventRef& event : later) EXPECT_FALSE(event->Done()) << "the all-to-all stands before it in the queue";
  Set(ready);
  for (const auto& events : {first, later}) {
    for (const EventRef& event : events) ASSERT_TRUE(world().Wait(event).ok());
  }
  EXPECT_TRUE(Holds(target, 8));
  for (int rank : {0, 1}) EXPECT_EQ(ToHost(rank, both[rank]), (std::vector<int32_t>{1, 3, 2, 4}));
}

TEST_P(TransportTest, AnErrorOfWhatAnAllToAllWaitsForEndsItForAllMembers) {
  OpenAll(2, {}, {Pair(1)});
  const Words mine[2] = {OnDevice(0, {1, 2}), OnDevice(1, {3, 4})}, all[2] = {OnDevice(0, {0, 0}), OnDevice(1, {0, 0})};
  const std::vector<int64_t> parts = {4, 4};
  auto computed = NewSignal();
  const EventRef events[2] = {ends_[0]->AllToAll(GroupId(0), mine[0].view, parts, all[0].view, DoneEvent()),
                              ends_[1]->AllToAll(GroupId(0), mine[1].view, parts, all[1].view, computed)};
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
    Words mine[2], all[2];
    for (int rank : {0, 1}) {
      const End& end = rank == 0 ? fine : c.other;
      mine[rank] = OnDevice(rank, std::vector<int32_t>(end.words_mine));
      all[rank] = OnDevice(rank, std::vector<int32_t>(end.words_all));
      events.push_back(
          end.parts.empty()
              ? ends_[rank]->AllGather(GroupId(0), mine[rank].view, {}, all[rank].view, DoneEvent())
              : ends_[rank]->AllToAll(GroupId(0), mine[rank].view, end.parts, all[rank].view, DoneEvent()));
    }
    for (const EventRef& event : events) {
      const absl::Status status = world().Wait(event);
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
      EXPECT_THAT(std::string(status.message()), testing::HasSubstr(c.says));
    }
    ends_.clear();
  }
}

}  // namespace sluice
