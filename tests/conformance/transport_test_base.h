// What the conformance suite of Transport runs on: a few ranks of an implementation, and helpers.
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

}  // namespace sluice
