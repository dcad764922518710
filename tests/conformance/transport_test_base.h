// What the conformance suite of Transport runs on: a few ranks of an implementation, and helpers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <numeric>
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
  // Whether an operation's span begins when both ends are ready, or when this one is.
  virtual bool sees_both_ends() const { return true; }
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
    streams_.clear();
    rig_ = nullptr;  // a thread lives in one simulated world at a time
    rig_ = GetParam().make(ranks);
    for (int rank = 0; rank < ranks; ++rank) {
      streams_.push_back(rig_->device(WorldRank(rank))->NewStream(absl::StrCat("test", rank)));
    }
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
  // Words in the memory of a rank's device.
  struct Words {
    Buffer buffer;
    TensorView view;
  };
  Words OnDevice(int rank, const std::vector<int32_t>& words) {
    Words result;
    const auto count = static_cast<int64_t>(words.size());
    auto buffer = rig_->device(WorldRank(rank))->Allocate(4 * std::max<int64_t>(count, 1), "words");
    EXPECT_TRUE(buffer.ok()) << buffer.status();
    result.buffer = *std::move(buffer);
    result.view = {result.buffer.data(), DType::kI32, {count}};
    Write(rank, words, result.view);
    return result;
  }
  std::vector<int32_t> ToHost(int rank, const TensorView& view) {
    std::vector<int32_t> words(view.elements());
    streams_[rank]->CopyToHost(view, words.data());
    EXPECT_TRUE(world().Wait(streams_[rank]->Record()).ok());
    return words;
  }
  std::vector<int32_t> ToHost(int rank, const Words& words) { return ToHost(rank, words.view); }

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
    auto slot = std::make_unique<TestSlot>();
    auto buffer = rig_->device(WorldRank(rank))->Allocate(kBytes, "slot");
    EXPECT_TRUE(buffer.ok());
    slot->buffer = *std::move(buffer);
    slot->rank = rank;
    Fill(slot.get(), fill);
    std::lock_guard lock(slots_mutex_);
    slots_.push_back(std::move(slot));
    return slots_.back().get();
  }
  void Fill(Slot* slot, int32_t value) { Write(RankOf(slot), Counting(value), ViewOf(slot)); }
  bool Holds(const Slot* slot, int32_t value) { return ToHost(RankOf(slot), ViewOf(slot)) == Counting(value); }

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

  struct TestSlot : Slot {
    int rank = 0;
  };
  static int RankOf(const Slot* slot) { return static_cast<const TestSlot*>(slot)->rank; }
  static TensorView ViewOf(const Slot* slot) { return {slot->buffer.data(), DType::kI32, {kWords}}; }
  static std::vector<int32_t> Counting(int32_t first) {
    std::vector<int32_t> words(kWords);
    std::iota(words.begin(), words.end(), first);
    return words;
  }
  void Write(int rank, const std::vector<int32_t>& words, const TensorView& target) {
    if (words.empty()) return;
    streams_[rank]->CopyToDevice(words.data(), target);
    EXPECT_TRUE(world().Wait(streams_[rank]->Record()).ok());
  }

  std::unique_ptr<TransportRig> rig_;
  std::vector<std::unique_ptr<Stream>> streams_;  // per rank
  std::vector<std::unique_ptr<Transport>> ends_;
  std::mutex slots_mutex_;  // ranks make their own slots
  std::vector<std::unique_ptr<TestSlot>> slots_;
};

}  // namespace sluice
