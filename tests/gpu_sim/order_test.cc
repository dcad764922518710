// The order of accesses: what is reported, what is not, and that this is exactly what an independent search through the
// program's order says, for thousands of random programs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bitset>
#include <cstring>
#include <map>
#include <optional>
#include <vector>

#include "base/philox.h"
#include "tests/gpu_sim/memory.h"
#include "tests/gpu_sim/test_program.h"

namespace gpu_sim {
namespace {

using testing::HasSubstr;

// Memory that something has written, so that only order is at stake.
std::byte* WrittenMemory(int64_t bytes, int device = 0) {
  std::byte* data = NewMemory(bytes, device);
  const cudaStream_t stream = NewStream(device);
  MustSucceed(cudaMemsetAsync(data, 0, bytes, stream));
  MustSucceed(cudaStreamSynchronize(stream));
  return data;
}

TEST(Order, TwoStreamsWithoutAnEventRace) {
  TestMachine sim;
  std::byte* data = WrittenMemory(64);
  EXPECT_EQ(Touch("Producer", NewStream(), {}, {Bytes(data, 64)}), cudaSuccess);
  EXPECT_EQ(Touch("Consumer", NewStream(), {Bytes(data + 16, 8)}, {}), cudaSuccess);
  ASSERT_EQ(sim.machine.reports().size(), 1u);
  EXPECT_THAT(
      sim.machine.ReportText(),
      testing::AllOf(HasSubstr("nothing orders Producer at "), HasSubstr("order_test.cc"), HasSubstr("which writes"),
                     HasSubstr("before Consumer at "), HasSubstr("bytes 16 to 24 of the memory of device 0")));
}

TEST(Order, ReadsDoNotRaceAndNeitherDoOtherBytes) {
  TestMachine sim;
  std::byte* data = WrittenMemory(64);
  EXPECT_EQ(Touch("first", NewStream(), {Bytes(data, 64)}, {}), cudaSuccess);
  EXPECT_EQ(Touch("second", NewStream(), {Bytes(data, 64)}, {}), cudaSuccess);
  std::byte* halves = WrittenMemory(64);
  EXPECT_EQ(Touch("left", NewStream(), {}, {Bytes(halves, 32)}), cudaSuccess);
  EXPECT_EQ(Touch("right", NewStream(), {}, {Bytes(halves + 32, 32)}), cudaSuccess);
  // Columns of one matrix.
  std::byte* matrix = WrittenMemory(64);
  EXPECT_EQ(Touch("even", NewStream(), {}, {{matrix, 8, 4, 16}}), cudaSuccess);
  EXPECT_EQ(Touch("odd", NewStream(), {}, {{matrix + 8, 8, 4, 16}}), cudaSuccess);
  EXPECT_EQ(sim.machine.ReportText(), "");
}

TEST(Order, AnEventOrdersWhatWasIssuedBeforeItsRecordOnly) {
  for (bool late : {false, true}) {
    TestMachine sim;
    std::byte* data = WrittenMemory(64);
    const cudaStream_t producer = NewStream(), consumer = NewStream();
    const cudaEvent_t event = NewEvent();
    if (late) MustSucceed(cudaEventRecord(event, producer));
    EXPECT_EQ(Touch("Producer", producer, {}, {Bytes(data, 64)}), cudaSuccess);
    if (!late) MustSucceed(cudaEventRecord(event, producer));
    EXPECT_EQ(cudaStreamWaitEvent(consumer, event), cudaSuccess);
    EXPECT_EQ(Touch("Consumer", consumer, {Bytes(data, 64)}, {}), cudaSuccess);
    EXPECT_EQ(sim.Times(ReportKind::kRace), late ? 1 : 0) << sim.machine.ReportText();
  }
}

TEST(Order, AWaitIsForTheRecordOfItsTime) {
  TestMachine sim;
  std::byte* data = WrittenMemory(64);
  const cudaStream_t producer = NewStream(), consumer = NewStream();
  const cudaEvent_t event = NewEvent();
  EXPECT_EQ(cudaEventRecord(event, producer), cudaSuccess);
  EXPECT_EQ(cudaStreamWaitEvent(consumer, event), cudaSuccess);
  EXPECT_EQ(Touch("Producer", producer, {}, {Bytes(data, 64)}), cudaSuccess);
  EXPECT_EQ(cudaEventRecord(event, producer), cudaSuccess);
  EXPECT_EQ(Touch("Consumer", consumer, {Bytes(data, 64)}, {}), cudaSuccess);
  EXPECT_EQ(sim.Times(ReportKind::kRace), 1);
}

TEST(Order, WhatTheHostSawEndIsBeforeWhatItIssuesLater) {
  for (bool sees : {true, false}) {
    TestMachine sim;
    std::byte* data = WrittenMemory(64);
    const cudaStream_t producer = NewStream();
    const cudaEvent_t event = NewEvent();
    EXPECT_EQ(Touch("Producer", producer, {}, {Bytes(data, 64)}), cudaSuccess);
    EXPECT_EQ(cudaEventRecord(event, producer), cudaSuccess);
    sim.world.Spend(1'000'000);  // it has ended by now, but only the event tells
    if (sees) MustSucceed(cudaEventQuery(event));
    EXPECT_EQ(Touch("Consumer", NewStream(), {Bytes(data, 64)}, {}), cudaSuccess);
    EXPECT_EQ(sim.Times(ReportKind::kRace), sees ? 0 : 1);
  }
}

TEST(Order, PinnedMemoryIsWatchedToo) {
  TestMachine sim;
  std::byte* data = WrittenMemory(64);
  std::byte* host = NewHostMemory(64);
  EXPECT_EQ(cudaMemcpyAsync(host, data, 64, cudaMemcpyDeviceToHost, NewStream()), cudaSuccess);
  EXPECT_EQ(cudaMemcpyAsync(data, host, 64, cudaMemcpyHostToDevice, NewStream()), cudaSuccess);
  EXPECT_EQ(sim.Times(ReportKind::kRace), 2) << sim.machine.ReportText();  // on both memories
}

TEST(Order, TheHostsOwnAccessesToPinnedMemoryToo) {
  for (bool waits : {true, false}) {
    TestMachine sim;
    std::byte* data = WrittenMemory(100);
    auto* host = reinterpret_cast<volatile std::byte*>(NewHostMemory(3 * 4096));
    const cudaStream_t stream = NewStream();
    auto* pinned = const_cast<std::byte*>(host);
    EXPECT_EQ(cudaMemcpyAsync(pinned + 8000, data, 50, cudaMemcpyDeviceToHost, stream), cudaSuccess);
    EXPECT_EQ(cudaMemcpyAsync(data, pinned + 100, 50, cudaMemcpyHostToDevice, stream), cudaSuccess);
    if (waits) MustSucceed(cudaStreamSynchronize(stream));
    host[99] = host[149];       // read by both
    host[7999] = std::byte{1};  // beside
    EXPECT_EQ(sim.machine.ReportText(), "");
    MustSucceed(cudaMemcpyAsync(pinned + 9000, data, 50, cudaMemcpyDeviceToHost, stream));
    if (waits) MustSucceed(cudaStreamSynchronize(stream));
    host[120] = std::byte{2};
    host[4096] = host[8010];
    EXPECT_EQ(sim.Times(ReportKind::kHostAccess), waits ? 0 : 2) << sim.machine.ReportText();
    MustSucceed(cudaStreamSynchronize(stream));
    host[120] = host[8010];
    EXPECT_EQ(sim.Times(ReportKind::kHostAccess), waits ? 0 : 2);
  }
}

TEST(Order, ReadingWhatWasNeverWrittenIsReported) {
  TestMachine sim;
  const cudaStream_t stream = NewStream();
  std::byte* data = NewMemory(64);
  EXPECT_EQ(cudaMemsetAsync(data, 0, 32, stream), cudaSuccess);
  EXPECT_EQ(Touch("reader", stream, {Bytes(data, 32)}, {}), cudaSuccess);
  EXPECT_EQ(sim.machine.ReportText(), "");
  EXPECT_EQ(Touch("reader", stream, {Bytes(data, 40)}, {}), cudaSuccess);
  EXPECT_EQ(sim.Times(ReportKind::kNeverWritten), 1);
  EXPECT_THAT(sim.machine.ReportText(), HasSubstr("bytes 32 to 40"));
}

// Two waits, of which the second is implied by the first.
void Chain(std::byte* data) {
  const cudaStream_t first = NewStream(), second = NewStream(), third = NewStream();
  const cudaEvent_t one = NewEvent(), two = NewEvent();
  MustSucceed(Touch("one", first, {}, {Bytes(data, 64)}));
  MustSucceed(cudaEventRecord(one, first));
  MustSucceed(cudaStreamWaitEvent(second, one));
  MustSucceed(Touch("two", second, {Bytes(data, 64)}, {}));
  MustSucceed(cudaEventRecord(two, second));
  MustSucceed(cudaStreamWaitEvent(third, two));
  MustSucceed(cudaStreamWaitEvent(third, one));
  MustSucceed(Touch("three", third, {}, {Bytes(data, 64)}));
}

TEST(LeftOut, AWaitThatIsNeededIsMissed) {
  std::vector<std::string> sites;
  const auto races_without = [&sites](const std::string& site) {
    TestMachine sim({.wait_left_out = site});
    Chain(WrittenMemory(64));
    sites = sim.machine.wait_sites();
    return sim.Times(ReportKind::kRace);
  };
  std::map<std::string, int64_t> races;
  for (int run = 0; run < 2; ++run) {
    for (const std::string& site : run == 0 ? std::vector<std::string>{""} : std::vector(sites))
      races[site] = races_without(site);
  }
  ASSERT_EQ(sites.size(), 3u) << "each wait is a place of its own";
  EXPECT_THAT(races, testing::UnorderedElementsAre(testing::Pair("", 0), testing::Pair(sites[0], 1),
                                                   testing::Pair(sites[1], 1), testing::Pair(sites[2], 0)));
}

// Random programs.
constexpr int kBytes = 24;
constexpr int kMostNodes = 128;

struct RandomAccess {
  int memory, begin, end;
  bool writes;
};

// What each node of a program touches, and which nodes come before it for sure: found from the program's text alone.
class Reference {
 public:
  explicit Reference(int streams) : last_(streams) {}

  void Command(int stream, std::vector<RandomAccess> accesses) {
    std::bitset<kMostNodes> before = last_[stream] | host_;
    accesses_.push_back(std::move(accesses));
    before_.push_back(before);
    last_[stream] = before.set(accesses_.size() - 1);
  }
  std::bitset<kMostNodes> Record(int stream) const { return last_[stream] | host_; }
  void Wait(int stream, const std::bitset<kMostNodes>& recorded) { last_[stream] |= recorded; }
  void HostSaw(const std::bitset<kMostNodes>& recorded) { host_ |= recorded; }

  bool HasRace() const {
    for (size_t later = 0; later < accesses_.size(); ++later) {
      for (size_t earlier = 0; earlier < later; ++earlier) {
        if (!before_[later][earlier] && Conflict(accesses_[earlier], accesses_[later])) return true;
      }
    }
    return false;
  }

 private:
  static bool Conflict(const std::vector<RandomAccess>& a, const std::vector<RandomAccess>& b) {
    for (const RandomAccess& x : a) {
      for (const RandomAccess& y : b) {
        if (x.memory == y.memory && (x.writes || y.writes) && x.begin < y.end && y.begin < x.end) return true;
      }
    }
    return false;
  }
  std::vector<std::vector<RandomAccess>> accesses_;
  std::vector<std::bitset<kMostNodes>> before_;
  std::vector<std::bitset<kMostNodes>> last_;  // of each stream
  std::bitset<kMostNodes> host_;
};

// One program, run and judged as it is written. Memory is kept a second time, where every command happens when it is
// issued.
class RandomProgram {
 public:
  RandomProgram(uint64_t seed, uint64_t run_seed)
      : state_(sluice::MixBits(seed)), sim_({.devices = 2, .seed = run_seed}), reference_(kStreams) {
    for (int i = 0; i < kStreams; ++i) streams_.push_back(NewStream(i % 2));
    for (int i = 0; i < kEvents; ++i) events_.push_back({.event = NewEvent(i % 2)});
    for (int i = 0; i < kMemories; ++i)
      memories_.push_back({WrittenMemory(kBytes, i % 2), std::vector<uint8_t>(kBytes)});
    for (int device : {0, 1}) {
      MustSucceed(cudaSetDevice(device));
      MustSucceed(cudaDeviceEnablePeerAccess(1 - device, 0));
    }
    careful_ = Below(2) == 0;
    const int length = 5 + Below(40);
    for (int i = 0; i < length; ++i) Step();
  }

  bool racy() const { return reference_.HasRace(); }
  int64_t races() const { return sim_.Times(ReportKind::kRace); }
  std::string ReportText() const { return sim_.machine.ReportText(); }
  // Whether memory is as if every command had run when it was issued.
  bool MemoryIsInOrder() {
    for (int device : {0, 1}) {
      MustSucceed(cudaSetDevice(device));
      MustSucceed(cudaDeviceSynchronize());
    }
    std::byte* host = NewHostMemory(kBytes);
    for (const Memory& memory : memories_) {
      const cudaStream_t stream = NewStream();
      MustSucceed(cudaMemcpyAsync(host, memory.data, kBytes, cudaMemcpyDefault, stream));
      MustSucceed(cudaStreamSynchronize(stream));
      if (std::memcmp(host, memory.expected.data(), kBytes) != 0) return false;
    }
    return true;
  }

 private:
  static constexpr int kStreams = 4, kEvents = 4, kMemories = 3;
  struct RandomEvent {
    cudaEvent_t event;
    bool recorded = false;
    std::bitset<kMostNodes> before;
  };
  struct Memory {
    std::byte* data;
    std::vector<uint8_t> expected;
  };

  int Below(int bound) { return static_cast<int>(sluice::MixBits(state_ += 0x9E3779B97F4A7C15u) % bound); }

  RandomAccess AnyAccess(bool writes) {
    const int begin = Below(kBytes), end = begin + 1 + Below(kBytes - begin);
    return {.memory = Below(kMemories), .begin = begin, .end = end, .writes = writes};
  }

  void Step() {
    const int stream = Below(kStreams);
    RandomEvent& event = events_[Below(kEvents)];
    MustSucceed(cudaSetDevice(stream % 2));
    switch (Below(8)) {
      case 0:
      case 1:
      case 2:
        LaunchOn(stream);
        break;
      case 3:
        RecordOn(stream);
        break;
      case 4:
        if (!event.recorded) break;
        MustSucceed(cudaEventSynchronize(event.event));
        reference_.HostSaw(event.before);
        break;
      case 5:
        if (cudaEventQuery(event.event) == cudaSuccess) reference_.HostSaw(event.before);
        break;
      default:
        if (event.recorded) WaitOn(stream, event);
    }
  }

  void RecordOn(int stream) {
    RandomEvent& event = events_[Below(kEvents / 2) * 2 + stream % 2];  // of the stream's device
    MustSucceed(cudaEventRecord(event.event, streams_[stream]));
    event.recorded = true;
    event.before = reference_.Record(stream);
  }

  void WaitOn(int stream, const RandomEvent& event) {
    MustSucceed(cudaStreamWaitEvent(streams_[stream], event.event));
    reference_.Wait(stream, event.before);
  }

  // Careful programs wait for a new event of every other stream before most launches.
  void LaunchOn(int stream) {
    for (int other = 0; careful_ && other < kStreams; ++other) {
      if (other == stream || Below(40) == 0) continue;
      RandomEvent& event = events_[other % 2];
      MustSucceed(cudaEventRecord(event.event, streams_[other]));
      event.recorded = true;
      event.before = reference_.Record(other);
      WaitOn(stream, event);
    }
    std::vector<RandomAccess> accesses;
    for (int i = Below(3); i > 0; --i) accesses.push_back(AnyAccess(false));
    for (int i = 1 + Below(2); i > 0; --i) accesses.push_back(AnyAccess(true));
    Issue(stream, accesses);
    reference_.Command(stream, accesses);
  }

  // Writes a mix of all that it reads, and of its number.
  void Issue(int stream, const std::vector<RandomAccess>& accesses) {
    ++number_;
    Apply(accesses, number_, [this](int memory) { return memories_[memory].expected.data(); });
    std::vector<LaunchRegion> reads, writes;
    for (const RandomAccess& access : accesses) {
      const LaunchRegion region = Bytes(memories_[access.memory].data + access.begin, access.end - access.begin);
      (access.writes ? writes : reads).push_back(region);
    }
    MustSucceed(Touch("kernel", streams_[stream], reads, writes, [this, accesses, number = number_] {
      Apply(accesses, number,
            [this](int memory) { return reinterpret_cast<uint8_t*>(StorageOf(memories_[memory].data)); });
      return cudaSuccess;
    }));
  }

  template <class DataOf>
  static void Apply(const std::vector<RandomAccess>& accesses, int number, const DataOf& data_of) {
    uint64_t mix = number;
    for (const RandomAccess& access : accesses) {
      for (int i = access.begin; i < access.end; ++i) {
        uint8_t& byte = data_of(access.memory)[i];
        if (access.writes) {
          byte = static_cast<uint8_t>(sluice::MixBits(mix + i));
        } else {
          mix = sluice::MixBits(mix ^ byte);
        }
      }
    }
  }

  uint64_t state_;
  TestMachine sim_;
  Reference reference_;
  std::vector<cudaStream_t> streams_;
  std::vector<RandomEvent> events_;
  std::vector<Memory> memories_;
  bool careful_ = false;
  int number_ = 0;
};

TEST(RandomPrograms, AreReportedExactlyWhenTheyRace) {
  int racy = 0, ordered_and_right = 0, caught_by_numbers = 0;
  constexpr int kPrograms = 3000;
  for (uint64_t seed = 0; seed < kPrograms; ++seed) {
    RandomProgram program(seed, /*run_seed=*/seed * 7 + 1);
    ASSERT_EQ(program.races() > 0, program.racy()) << "seed " << seed << "\n" << program.ReportText();
    const bool in_order = program.MemoryIsInOrder();
    racy += program.racy();
    ordered_and_right += !program.racy() && in_order;
    caught_by_numbers += !in_order;
    ASSERT_TRUE(in_order || program.racy()) << "seed " << seed << ": an ordered program gave other numbers";
  }
  // Both kinds in numbers; and races do change numbers.
  EXPECT_GT(racy, kPrograms / 4);
  EXPECT_GT(ordered_and_right, kPrograms / 4);
  EXPECT_GT(caught_by_numbers, racy / 10);
}

}  // namespace
}  // namespace gpu_sim
