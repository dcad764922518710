// What every Device promises, as one suite: include it, and instantiate DeviceConformance with a factory per backend.
// Host memory is read and written only through copies, so that the suite runs on a GPU as it does on the CPU.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "base/world.h"
#include "kernels/device.h"
#include "kernels/operations.h"

namespace sluice {

struct DeviceUnderTest {
  std::unique_ptr<World> world;
  std::shared_ptr<void> machine;  // what the device is a part of, where that is simulated too
  std::unique_ptr<Device> device;
};

struct DeviceFactory {
  std::string name;
  // A device that may hold so many bytes (0: no limit).
  std::function<DeviceUnderTest(int64_t memory_limit_bytes)> make;
  friend void PrintTo(const DeviceFactory& factory, std::ostream* out) { *out << factory.name; }
};

class DeviceConformance : public testing::TestWithParam<DeviceFactory> {
 protected:
  DeviceConformance() : under_test_(GetParam().make(0)) {}
  World& world() { return *under_test_.world; }
  Device& device() { return *under_test_.device; }
  // A thread may be in one simulated world at a time: the old one goes first.
  void Remake(int64_t memory_limit_bytes) {
    under_test_.device.reset();
    under_test_.machine.reset();
    under_test_.world.reset();
    under_test_ = GetParam().make(memory_limit_bytes);
  }

  static TensorView F32(const Buffer& buffer, int64_t count) { return {buffer.data(), DType::kF32, Shape{count}}; }
  Buffer Allocate(int64_t bytes) {
    auto buffer = device().Allocate(bytes, "test");
    EXPECT_TRUE(buffer.ok()) << buffer.status();
    return *std::move(buffer);
  }
  std::vector<float> ToHost(Stream& stream, TensorView view) {
    std::vector<float> host(view.elements());
    stream.CopyToHost(view, host.data());
    EXPECT_TRUE(world().Wait(stream.Record()).ok());
    return host;
  }

 private:
  DeviceUnderTest under_test_;
};

TEST_P(DeviceConformance, FreshMemoryIsZeroedAndAligned) {
  auto stream = device().NewStream("test");
  for (int64_t bytes : {4, 60, 4096, 3'000'000}) {
    const Buffer buffer = Allocate(bytes);
    EXPECT_EQ(buffer.bytes(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0u);
    EXPECT_EQ(ToHost(*stream, F32(buffer, bytes / 4)), std::vector<float>(bytes / 4, 0.0f));
  }
}

TEST_P(DeviceConformance, RecycledMemoryIsZeroedToo) {
  auto stream = device().NewStream("test");
  const std::vector<float> ones(1000, 1.0f);
  for (int i = 0; i < 20; ++i) {
    const Buffer buffer = Allocate(4000);
    EXPECT_EQ(ToHost(*stream, F32(buffer, 1000)), std::vector<float>(1000, 0.0f));
    stream->CopyToDevice(ones.data(), F32(buffer, 1000));
    ASSERT_TRUE(world().Wait(stream->Record()).ok());
  }
}

TEST_P(DeviceConformance, CountsMemory) {
  const MemoryUse before = device().memory();
  {
    Buffer a = Allocate(1000);
    Buffer b = Allocate(500);
    EXPECT_EQ(device().memory().bytes, before.bytes + 1500);
    a = Buffer();
    EXPECT_EQ(device().memory().bytes, before.bytes + 500);
    Buffer c = std::move(b);
    EXPECT_EQ(device().memory().bytes, before.bytes + 500);
  }
  EXPECT_EQ(device().memory().bytes, before.bytes);
  EXPECT_EQ(device().memory().peak_bytes, before.peak_bytes + 1500);
  EXPECT_EQ(device().memory().allocations, before.allocations + 2);
}

TEST_P(DeviceConformance, RefusesMoreThanItsLimitAndSaysWhy) {
  Remake(10'000);
  auto first = device().Allocate(8'000, "weights");
  ASSERT_TRUE(first.ok());
  const auto second = device().Allocate(4'000, "stash");
  ASSERT_EQ(second.status().code(), absl::StatusCode::kResourceExhausted);
  for (const char* part : {"stash", "4000", "8000", "10000"}) {
    EXPECT_NE(second.status().message().find(part), absl::string_view::npos) << part << " in " << second.status();
  }
  *first = Buffer();
  EXPECT_TRUE(device().Allocate(10'000, "weights").ok());
}

TEST_P(DeviceConformance, DescribesItself) { EXPECT_FALSE(device().description().empty()); }

TEST_P(DeviceConformance, WorkOfAStreamRunsInOrder) {
  auto stream = device().NewStream("test");
  const Buffer buffer = Allocate(4 * 100'000);
  std::vector<float> source(100'000);
  std::vector<std::vector<float>> results(8, std::vector<float>(100'000));
  for (size_t round = 0; round < results.size(); ++round) {
    // The host's memory may change only after the copy: wait for it.
    std::fill(source.begin(), source.end(), static_cast<float>(round));
    stream->CopyToDevice(source.data(), F32(buffer, 100'000));
    stream->CopyToHost(F32(buffer, 100'000), results[round].data());
    ASSERT_TRUE(world().Wait(stream->Record()).ok());
  }
  for (size_t round = 0; round < results.size(); ++round) {
    EXPECT_EQ(results[round], std::vector<float>(100'000, static_cast<float>(round)));
  }
}

TEST_P(DeviceConformance, MoreCommandsThanAnyQueueHolds) {
  auto stream = device().NewStream("test");
  const Buffer buffer = Allocate(4 * 5000);
  std::vector<float> source(5000), result(5000);
  std::iota(source.begin(), source.end(), 0.0f);
  for (int i = 0; i < 5000; ++i) stream->CopyToDevice(&source[i], {buffer.data() + 4 * i, DType::kF32, Shape{1}});
  stream->CopyToHost(F32(buffer, 5000), result.data());
  ASSERT_TRUE(world().Wait(stream->Record()).ok());
  EXPECT_EQ(result, source);
}

TEST_P(DeviceConformance, AnEventIsPendingUntilWhatItWaitsForIsDone) {
  auto stream = device().NewStream("test");
  auto gate = MakeRef<Signal>();
  const EventRef before = stream->Record();
  stream->Wait(gate);
  const EventRef after = stream->Record();
  ASSERT_TRUE(world().Wait(before).ok());
  EXPECT_FALSE(world().WaitAny({&after, 1}, world().Now() + 2 * kMillisecond).has_value());
  EXPECT_FALSE(after->Done());
  gate->Set(absl::OkStatus(), world().Now());
  EXPECT_TRUE(world().Wait(after).ok());
  EXPECT_TRUE(after->Done());
}

TEST_P(DeviceConformance, StreamsWaitForOneAnother) {
  auto first = device().NewStream("first");
  auto second = device().NewStream("second");
  const Buffer buffer = Allocate(4);
  auto gate = MakeRef<Signal>();
  const float value = 7;
  float result = 0;
  first->Wait(gate);
  first->CopyToDevice(&value, F32(buffer, 1));
  second->Wait(first->Record());
  second->CopyToHost(F32(buffer, 1), &result);
  const EventRef done = second->Record();
  EXPECT_FALSE(done->Done());
  gate->Set(absl::OkStatus(), world().Now());
  ASSERT_TRUE(world().Wait(done).ok());
  EXPECT_EQ(result, 7);
}

TEST_P(DeviceConformance, TwoRecordsGiveTheSpanBetweenThem) {
  auto stream = device().NewStream("test");
  const Buffer buffer = Allocate(4'000'000);
  std::vector<float> host(1'000'000);
  const Nanoseconds start = world().Now();
  const EventRef before = stream->Record();
  for (int i = 0; i < 4; ++i) stream->CopyToHost(F32(buffer, 1'000'000), host.data());
  const EventRef after = stream->Record();
  ASSERT_TRUE(world().Wait(after).ok());
  EXPECT_GE(before->ended(), start);
  EXPECT_LE(before->began(), before->ended());
  EXPECT_GE(after->began(), before->ended());
  EXPECT_GE(after->ended(), after->began());
  EXPECT_LE(after->ended(), world().Now());
}

TEST_P(DeviceConformance, ASpanBeginsWithItsWorkAndNotWithTheIdleTimeBefore) {
  auto stream = device().NewStream("test");
  const Buffer buffer = Allocate(4);
  float host = 0;
  ASSERT_TRUE(world().Wait(stream->Record()).ok());
  const Nanoseconds idle_until = world().Now() + 5 * kMillisecond;
  world().SleepUntil(idle_until);
  stream->CopyToHost(F32(buffer, 1), &host);
  const EventRef done = stream->Record();
  ASSERT_TRUE(world().Wait(done).ok());
  EXPECT_GE(done->began(), idle_until);
}

TEST_P(DeviceConformance, ASpanGoesOnThroughForkAndJoin) {
  auto stream = device().NewStream("test");
  const Buffer buffer = Allocate(4);
  float host = 0;
  const Ref<Signal> gate = MakeRef<Signal>();
  stream->CopyToHost(F32(buffer, 1), &host);
  const EventRef forked = stream->Fork();
  stream->Join(gate);
  stream->CopyToHost(F32(buffer, 1), &host);
  const EventRef done = stream->Record();
  ASSERT_TRUE(world().Wait(forked).ok());
  EXPECT_FALSE(done->Done()) << "work behind Join() waits";
  gate->Set(absl::OkStatus(), world().Now());
  ASSERT_TRUE(world().Wait(done).ok());
  EXPECT_EQ(done->began(), forked->began());
}

TEST_P(DeviceConformance, AnErrorThatIsJoinedIsTheStreams) {
  auto stream = device().NewStream("test");
  const Ref<Signal> gate = MakeRef<Signal>();
  stream->Join(gate);
  const EventRef done = stream->Record();
  gate->Set(absl::UnavailableError("a peer has left"), world().Now());
  EXPECT_EQ(world().Wait(done).code(), absl::StatusCode::kUnavailable);
}

TEST_P(DeviceConformance, AnAbortedStreamWaitsForNothingAndSkipsTheRest) {
  auto stream = device().NewStream("test");
  const Buffer buffer = Allocate(4);
  const float value = 3;
  const EventRef before = stream->Record();
  ASSERT_TRUE(world().Wait(before).ok());
  stream->Wait(MakeRef<Signal>());
  stream->CopyToDevice(&value, F32(buffer, 1));
  const EventRef after = stream->Record();
  EXPECT_FALSE(after->Done());
  stream->Abort(absl::AbortedError("a peer has failed"));
  stream->Abort(absl::InternalError("a later cause"));
  EXPECT_EQ(world().Wait(after), absl::AbortedError("a peer has failed"));
  EXPECT_EQ(world().Wait(stream->Record()), absl::AbortedError("a peer has failed"));
  EXPECT_TRUE(before->status().ok());
  auto other = device().NewStream("other");
  EXPECT_EQ(ToHost(*other, F32(buffer, 1)), std::vector<float>{0.0f});
}

TEST_P(DeviceConformance, DrainWaitsForAllThatWasIssued) {
  auto stream = device().NewStream("test");
  const Buffer buffer = Allocate(4'000'000);
  std::vector<float> host(1'000'000);
  EventRef last;
  for (int i = 0; i < 8; ++i) {
    stream->CopyToDevice(host.data(), F32(buffer, 1'000'000));
    last = stream->Record();
  }
  stream->Drain();
  EXPECT_TRUE(last->Done());
}

TEST_P(DeviceConformance, TheFirstErrorIsTerminalAndLaterWorkIsSkipped) {
  auto stream = device().NewStream("test");
  const Buffer buffer = Allocate(4);
  const float value = 3;
  const EventRef before = stream->Record();
  auto failed = MakeRef<Signal>();
  stream->Wait(failed);
  stream->CopyToDevice(&value, F32(buffer, 1));
  const EventRef after = stream->Record();
  auto later_failure = MakeRef<Signal>();
  stream->Wait(later_failure);
  later_failure->Set(absl::DataLossError("second"), world().Now());
  const EventRef last = stream->Record();
  failed->Set(absl::AbortedError("first"), world().Now());
  EXPECT_TRUE(world().Wait(before).ok());
  EXPECT_EQ(world().Wait(after), absl::AbortedError("first"));
  EXPECT_EQ(world().Wait(last), absl::AbortedError("first"));
  auto other = device().NewStream("other");
  EXPECT_EQ(ToHost(*other, F32(buffer, 1)), std::vector<float>{0.0f});
}

TEST_P(DeviceConformance, AStreamDrainsWhenItDies) {
  const Buffer buffer = Allocate(4'000'000);
  std::vector<float> source(1'000'000, 5.0f), result(1'000'000);
  auto stream = device().NewStream("test");
  for (int i = 0; i < 10; ++i) stream->CopyToDevice(source.data(), F32(buffer, 1'000'000));
  stream->CopyToHost(F32(buffer, 1'000'000), result.data());
  const EventRef done = stream->Record();
  stream.reset();
  EXPECT_TRUE(done->Done());
  EXPECT_EQ(result, source);
}

TEST_P(DeviceConformance, EventsOutliveTheirStream) {
  std::vector<EventRef> events;
  {
    auto stream = device().NewStream("test");
    for (int i = 0; i < 100; ++i) events.push_back(stream->Record());
  }
  for (const EventRef& event : events) EXPECT_TRUE(event->Done() && event->status().ok());
}

TEST_P(DeviceConformance, EventsCanBeWaitedForTogether) {
  auto first = device().NewStream("first");
  auto second = device().NewStream("second");
  auto gate = MakeRef<Signal>();
  first->Wait(gate);
  const EventRef events[] = {first->Record(), second->Record()};
  EXPECT_EQ(world().WaitAny(events, kForever), 1u);
  gate->Set(absl::OkStatus(), world().Now());
  EXPECT_TRUE(world().Wait(events[0]).ok());
}

TEST_P(DeviceConformance, OperationsRunOnTheStream) {
  auto stream = device().NewStream("test");
  const Buffer a = Allocate(400), b = Allocate(400);
  device().operations().Fill(*stream, F32(a, 100), 2.5f);
  device().operations().Copy(*stream, F32(a, 100), F32(b, 100));
  device().operations().Add(*stream, {.a = F32(a, 100), .b = F32(b, 100), .y = F32(b, 100)});
  EXPECT_EQ(ToHost(*stream, F32(b, 100)), std::vector<float>(100, 5.0f));
}

}  // namespace sluice
