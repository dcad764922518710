// What every World promises, run on the real one and on the simulated one; and what only the simulated one promises.
#include "base/world.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/relay_event.h"
#include "base/signal_pool.h"
#include "gtest/gtest.h"
#include "tests/sim/sim_world.h"

namespace sluice {
namespace {

struct WorldKind {
  const char* name;
  std::unique_ptr<World> (*make)(uint64_t seed);
};

std::unique_ptr<World> MakeSimWorld(uint64_t seed) {
  return std::make_unique<SimWorld>(SimWorldOptions{.seed = seed, .stall_one_in = 7, .stall_max = 50 * kMicrosecond});
}

class WorldTest : public testing::TestWithParam<WorldKind> {
 protected:
  std::unique_ptr<World> world_ = GetParam().make(1);
};

TEST_P(WorldTest, TimeStartsNearZeroAndNeverGoesBack) {
  Nanoseconds last = world_->Now();
  EXPECT_GE(last, 0);
  EXPECT_LT(last, 10 * kSecond);
  for (int i = 0; i < 100; ++i) {
    world_->WaitAny({}, world_->Now() + 10);
    const Nanoseconds now = world_->Now();
    EXPECT_GE(now, last);
    last = now;
  }
}

TEST_P(WorldTest, SpawnRunsTheBodyAndItsEventIsDoneAfterwards) {
  bool ran = false;
  const EventRef ended = world_->Spawn({.name = "child"}, [&] { ran = true; });
  EXPECT_TRUE(world_->Wait(ended).ok());
  EXPECT_TRUE(ran);
}

TEST_P(WorldTest, TasksMaySpawnTasks) {
  std::atomic<int> count = 0;
  std::function<void(int)> grow = [&](int depth) {
    count.fetch_add(1);
    if (depth == 0) return;
    const EventRef left = world_->Spawn({.name = "left"}, [&, depth] { grow(depth - 1); });
    const EventRef right = world_->Spawn({.name = "right"}, [&, depth] { grow(depth - 1); });
    EXPECT_TRUE(world_->Wait(left).ok());
    EXPECT_TRUE(world_->Wait(right).ok());
  };
  grow(3);
  EXPECT_EQ(count.load(), 15);
}

TEST_P(WorldTest, DestructionLetsTasksRunToTheirEnd) {
  std::atomic<int> ended = 0;
  for (int i = 0; i < 4; ++i) {
    world_->Spawn({.name = "sleeper"}, [&ended, world = world_.get(), i] {
      world->SleepUntil(world->Now() + i * kMillisecond);
      ended.fetch_add(1);
    });
  }
  world_.reset();
  EXPECT_EQ(ended.load(), 4);
}

TEST_P(WorldTest, AnEventDoneBeforeTheWaitReturnsAtOnceAlsoPastTheDeadline) {
  EXPECT_EQ(world_->WaitAny({{DoneEvent()}}, kForever), 0u);
  EXPECT_EQ(world_->WaitAny({{DoneEvent()}}, 0), 0u);
}

TEST_P(WorldTest, TheLowestDoneEventIsReturned) {
  auto pending = MakeRef<Signal>();
  const std::array<EventRef, 4> events = {pending, DoneEvent(), pending, DoneEvent()};
  EXPECT_EQ(world_->WaitAny(events, kForever), 1u);
}

TEST_P(WorldTest, ADeadlineEndsAWaitForPendingEvents) {
  auto pending = MakeRef<Signal>();
  const std::array<EventRef, 2> events = {pending, pending};
  const Nanoseconds deadline = world_->Now() + 2 * kMillisecond;
  EXPECT_EQ(world_->WaitAny(events, deadline), std::nullopt);
  EXPECT_GE(world_->Now(), deadline);
  EXPECT_EQ(world_->WaitAny(events, 0), std::nullopt) << "a deadline in the past doesn't block";
}

TEST_P(WorldTest, AWaitWithoutEventsLastsUntilItsDeadline) {
  const Nanoseconds until = world_->Now() + kMillisecond;
  world_->SleepUntil(until);
  EXPECT_GE(world_->Now(), until);
}

TEST_P(WorldTest, AWaitEndsWhenAnotherTaskCompletesTheEvent) {
  auto signal = MakeRef<Signal>();
  world_->Spawn({.name = "completer"}, [&, signal] {
    world_->SleepUntil(world_->Now() + kMillisecond);
    signal->Set(absl::OkStatus(), 3, 8);
  });
  EXPECT_TRUE(world_->Wait(signal).ok());
  EXPECT_EQ(signal->began(), 3);
  EXPECT_EQ(signal->ended(), 8);
}

TEST_P(WorldTest, WaitReturnsTheErrorTheEventEndedWith) {
  auto signal = MakeRef<Signal>();
  world_->Spawn({.name = "completer"}, [&, signal] { signal->Set(absl::DataLossError("torn"), world_->Now()); });
  EXPECT_EQ(world_->Wait(signal), absl::DataLossError("torn"));
  EXPECT_FALSE(signal->Set(absl::OkStatus(), 0)) << "the first completion wins";
  EXPECT_EQ(signal->status(), absl::DataLossError("torn"));
}

TEST_P(WorldTest, ManyWaitersOfOneEventAllGoOn) {
  auto signal = MakeRef<Signal>();
  std::atomic<int> woken = 0;
  std::vector<EventRef> tasks;
  for (int i = 0; i < 12; ++i) {
    tasks.push_back(world_->Spawn({.name = "waiter"}, [&] {
      EXPECT_TRUE(world_->Wait(signal).ok());
      woken.fetch_add(1);
    }));
  }
  world_->SleepUntil(world_->Now() + kMillisecond);
  EXPECT_EQ(woken.load(), 0);
  signal->Set(absl::OkStatus(), world_->Now());
  for (const EventRef& task : tasks) EXPECT_TRUE(world_->Wait(task).ok());
  EXPECT_EQ(woken.load(), 12);
}

TEST_P(WorldTest, WhatTheCompleterWroteIsSeenByTheWaiter) {
  for (int round = 0; round < 50; ++round) {
    auto signal = MakeRef<Signal>();
    int value = 0;
    const EventRef task = world_->Spawn({.name = "writer"}, [&, signal] {
      value = round + 1;
      signal->Set(absl::OkStatus(), world_->Now());
    });
    EXPECT_TRUE(world_->Wait(signal).ok());
    EXPECT_EQ(value, round + 1);
    EXPECT_TRUE(world_->Wait(task).ok());
  }
}

// Two tasks hand a token back and forth through fresh signals, while a third one waits for either with short deadlines.
TEST_P(WorldTest, NoWakeUpIsLostUnderStress) {
  constexpr int kRounds = 1500;
  const auto pool = MakeRef<SignalPool>();
  std::vector<Ref<Signal>> ping, pong;
  for (int i = 0; i < kRounds; ++i) {
    ping.push_back(pool->Take());
    pong.push_back(pool->Take());
  }
  const EventRef echo = world_->Spawn({.name = "echo"}, [&] {
    for (int i = 0; i < kRounds; ++i) {
      EXPECT_TRUE(world_->Wait(ping[i]).ok());
      pong[i]->Set(absl::OkStatus(), world_->Now());
    }
  });
  const EventRef onlooker = world_->Spawn({.name = "onlooker"}, [&] {
    for (int i = 0; i < kRounds; i += 10) {
      const std::array<EventRef, 3> events = {pong[i], ping[kRounds - 1], pong[kRounds - 1]};
      while (!world_->WaitAny(events, world_->Now() + 20 * kMicrosecond)) {
      }
    }
  });
  for (int i = 0; i < kRounds; ++i) {
    ping[i]->Set(absl::OkStatus(), world_->Now());
    EXPECT_TRUE(world_->Wait(pong[i]).ok());
  }
  EXPECT_TRUE(world_->Wait(echo).ok());
  EXPECT_TRUE(world_->Wait(onlooker).ok());
}

TEST_P(WorldTest, ADoorbellLosesNoRing) {
  constexpr int kItems = 2000;
  Doorbell bell(MakeRef<SignalPool>());
  std::atomic<int> produced = 0;
  std::vector<EventRef> producers;
  for (int i = 0; i < 3; ++i) {
    producers.push_back(world_->Spawn({.name = "producer"}, [&] {
      for (int item = 0; item < kItems; ++item) {
        produced.fetch_add(1);
        bell.Ring(world_->Now());
        if (item % 64 == 0) world_->WaitAny({}, 0);
      }
    }));
  }
  for (;;) {
    const EventRef rung = bell.Arm();
    if (produced.load() == 3 * kItems) break;
    EXPECT_TRUE(world_->Wait(rung).ok());
  }
  for (const EventRef& producer : producers) EXPECT_TRUE(world_->Wait(producer).ok());
}

TEST_P(WorldTest, ARelayEndsAsWhatItWasBoundTo) {
  const auto relays = MakeRef<RelayPool>();
  for (const bool bound_first : {true, false}) {
    const Ref<RelayEvent> relay = relays->Take();
    const Ref<Signal> target = MakeRef<Signal>();
    EXPECT_EQ(relay->StandsFor(), nullptr);
    const EventRef other = world_->Spawn({.name = "other"}, [&] {
      if (bound_first) relay->Bind(target);
      world_->SleepUntil(world_->Now() + kMillisecond);
      target->Set(absl::OkStatus(), 3, 7);
      if (!bound_first) relay->Bind(target);
    });
    EXPECT_TRUE(world_->Wait(relay).ok());
    EXPECT_EQ(relay->began(), 3);
    EXPECT_EQ(relay->ended(), 7);
    EXPECT_EQ(relay->StandsFor(), target.get());
    EXPECT_TRUE(world_->Wait(other).ok());
  }
}

TEST_P(WorldTest, ARelayTellsAnErrorInTheWordsItIsGiven) {
  const auto relays = MakeRef<RelayPool>();
  const Ref<RelayEvent> relay = relays->Take(), unbound = relays->Take();
  const Ref<Signal> target = MakeRef<Signal>();
  relay->Bind(target);
  target->Set(absl::InternalError("copy failed"), world_->Now());
  EXPECT_FALSE(relay->Done());
  const EventRef other = world_->Spawn({.name = "other"}, [&] {
    world_->SleepUntil(world_->Now() + kMillisecond);
    for (const auto& event : {relay, unbound}) event->Fail(absl::InternalError("rank 1: copy failed"), world_->Now());
  });
  EXPECT_EQ(world_->Wait(relay), absl::InternalError("rank 1: copy failed"));
  EXPECT_EQ(world_->Wait(unbound), absl::InternalError("rank 1: copy failed"));
  EXPECT_TRUE(world_->Wait(other).ok());
}

TEST_P(WorldTest, PooledSignalsOutliveThePoolsOwner) {
  auto pool = MakeRef<SignalPool>();
  Ref<Signal> kept = pool->Take();
  Signal* first = nullptr;
  {
    Ref<Signal> returned = pool->Take();
    returned->Set(absl::InternalError("old"), 1);
    first = returned.get();
  }
  Ref<Signal> again = pool->Take();
  EXPECT_EQ(again.get(), first) << "a returned signal is used again";
  EXPECT_FALSE(again->Done());
  pool = nullptr;
  kept->Set(absl::OkStatus(), 1);
  EXPECT_TRUE(kept->Done());
}

INSTANTIATE_TEST_SUITE_P(Worlds, WorldTest,
                         testing::Values(WorldKind{"Real", [](uint64_t) { return NewRealWorld(); }},
                                         WorldKind{"Simulated", MakeSimWorld}),
                         [](const auto& info) { return info.param.name; });

// Three tasks that interleave as the seed says; returns their order as text.
std::string Interleaving(uint64_t seed, uint64_t* hash) {
  SimWorld world({.seed = seed});
  std::string order;
  for (char name : {'a', 'b', 'c'}) {
    world.Spawn({.name = std::string(1, name)}, [&world, &order, name] {
      for (int i = 0; i < 5; ++i) {
        order += name;
        world.Spend(static_cast<Nanoseconds>(world.Random() % 3));
      }
    });
  }
  world.SleepUntil(100);
  *hash = world.trace_hash();
  return order;
}

TEST(SimWorldTest, EqualSeedsGiveEqualRunsAndOthersDiffer) {
  std::vector<std::string> orders;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    uint64_t first = 0, second = 0;
    const std::string order = Interleaving(seed, &first);
    EXPECT_EQ(order, Interleaving(seed, &second)) << "seed " << seed;
    EXPECT_EQ(first, second) << "seed " << seed;
    orders.push_back(order);
  }
  std::sort(orders.begin(), orders.end());
  EXPECT_GT(std::unique(orders.begin(), orders.end()) - orders.begin(), 10);
}

TEST(SimWorldTest, TimeIsVirtualAndMovesOnlyWhenAllWait) {
  SimWorld world({.seed = 3});
  const Nanoseconds day = 86400 * kSecond;
  const EventRef sleeper = world.Spawn({.name = "sleeper"}, [&] { world.Spend(day); });
  const EventRef worker = world.Spawn({.name = "worker"}, [&] {
    for (int i = 0; i < 100; ++i) world.WaitAny({}, 0);
    EXPECT_EQ(world.Now(), 0);
  });
  EXPECT_TRUE(world.Wait(worker).ok());
  EXPECT_TRUE(world.Wait(sleeper).ok());
  EXPECT_EQ(world.Now(), day);
}

TEST(SimWorldTest, TasksThatSpendTimeOverlap) {
  SimWorld world({.seed = 4});
  std::vector<EventRef> tasks;
  for (int i = 1; i <= 4; ++i)
    tasks.push_back(world.Spawn({.name = "worker"}, [&world, i] { world.Spend(i * kSecond); }));
  for (const EventRef& task : tasks) EXPECT_TRUE(world.Wait(task).ok());
  EXPECT_EQ(world.Now(), 4 * kSecond);
}

TEST(SimWorldDeathTest, ADeadlockIsReportedWithTheTasksNames) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_DEATH(
      {
        SimWorld world({.seed = 5});
        auto never = MakeRef<Signal>();
        world.Spawn({.name = "philosopher"}, [&] { (void)world.Wait(never); });
        (void)world.Wait(never);
      },
      "deadlock in the simulated world, seed 5:(.|\n)*main(.|\n)*philosopher");
}

}  // namespace
}  // namespace sluice
