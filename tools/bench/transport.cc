// How fast messages move: our channels between two processes beside Gloo alone, and collectives in a process and
// between processes.
//   bazel run -c opt //tools/bench:transport -- [channels | collectives]...
//
// Latency: half the time of a message there and one of the same size back, receives posted ahead; the median of all.
// Bandwidth: messages in one direction, four under way at a time, receives posted ahead; bytes by time, the median of
// the rounds. Gloo alone and we take turns, round by round, in the same two processes, over loopback. A collective's
// rate is the bytes that come to rest in the `all` of all ranks by the time until the last one has them; the median of
// the rounds. Each rank is a thread of one process, or a process of its own.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/world.h"
#include "kernels/cpu/cpu_device.h"
#include "runtime/transport/gloo_hub.h"
#include "runtime/transport/in_process.h"
#include "tools/bench/forked_processes.h"
#include "tools/bench/raw_gloo.h"

namespace sluice {
namespace {

constexpr int kPlaces = 4;
constexpr int kRounds = 11;
constexpr int64_t kSizes[] = {64, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20};

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// Our channels with the calls of RawGloo: channel 0 leads from process 0 to 1, channel 1 back.
class Channels {
 public:
  Channels(World* world, Device* device, int process, const ExchangeBlobs& exchange, int64_t bytes)
      : world_(world),
        process_(process),
        hub_(world, {.process = process, .process_of = {0, 1}, .exchange = exchange}) {
    std::vector<ChannelSpec> channels;
    for (const int sender : {0, 1}) {
      channels.push_back({.id = ChannelId(sender),
                          .sender = WorldRank(sender),
                          .receiver = WorldRank(1 - sender),
                          .queue = QueueId(sender),
                          .bytes = bytes,
                          .message = "bytes"});
    }
    auto end = hub_.Open(WorldRank(process), channels, {});
    CHECK_OK(end.status());
    end_ = *std::move(end);
    CHECK_OK(hub_.Connect());
    for (Slot* slots : {sends_, receives_}) {
      for (int i = 0; i < kPlaces; ++i) {
        auto buffer = device->Allocate(bytes, "message");
        CHECK_OK(buffer.status());
        slots[i].buffer = *std::move(buffer);
        std::memset(slots[i].buffer.data(), 1, bytes);
      }
    }
  }

  void Send(int place, size_t) { sent_[place] = end_->Send(ChannelId(process_), &sends_[place], DoneEvent()); }
  void WaitSend(int place) { CHECK_OK(world_->Wait(sent_[place])); }
  void Recv(int place, size_t) { got_[place] = end_->Recv(ChannelId(1 - process_), &receives_[place], DoneEvent()); }
  void WaitRecv(int place) { CHECK_OK(world_->Wait(got_[place])); }

 private:
  World* const world_;
  const int process_;
  Slot sends_[kPlaces], receives_[kPlaces];
  EventRef sent_[kPlaces], got_[kPlaces];
  GlooHub hub_;
  std::unique_ptr<Transport> end_;
};

// Appends what each message took one way. Two receives are posted ahead.
template <class Link>
void PingPong(World* world, Link& link, int process, int64_t bytes, int count, std::vector<double>* microseconds) {
  for (int i = 0; i < 2; ++i) link.Recv(i, bytes);
  for (int i = 0; i < count; ++i) {
    const Nanoseconds begin = world->Now();
    if (process == 0) link.Send(0, bytes);
    link.WaitRecv(i % 2);
    if (process == 1) link.Send(0, bytes);
    if (i + 2 < count) link.Recv(i % 2, bytes);
    link.WaitSend(0);
    microseconds->push_back(static_cast<double>(world->Now() - begin) / 2e3);
  }
}

// Bytes a nanosecond from process 0 to 1.
template <class Link>
double Stream(World* world, Link& link, int process, int64_t bytes, int count) {
  const Nanoseconds begin = world->Now();
  for (int i = 0; i < count + kPlaces; ++i) {
    const int place = i % kPlaces;
    if (i >= kPlaces) process == 0 ? link.WaitSend(place) : link.WaitRecv(place);
    if (i < count) process == 0 ? link.Send(place, bytes) : link.Recv(place, bytes);
  }
  const Nanoseconds end = world->Now();
  return static_cast<double>(bytes) * count / static_cast<double>(end - begin);
}

int MeasureChannels(int process, const ExchangeBlobs& exchange) {
  const auto world = NewRealWorld();
  const auto device = cpu::NewCpuDevice(world.get(), {});
  RawGloo raw(process, exchange, kSizes[std::size(kSizes) - 1]);
  if (process == 1) {
    std::printf("%10s %12s %12s %8s %12s %12s %8s\n", "bytes", "Gloo us", "channel us", "more us", "Gloo GB/s",
                "channel GB/s", "share");
    std::fflush(stdout);
  }
  for (const int64_t bytes : kSizes) {
    Channels ours(world.get(), device.get(), process, exchange, bytes);
    const int pings = static_cast<int>(std::clamp<int64_t>((64 << 20) / bytes, 3, 500));
    const int messages = static_cast<int>(std::clamp<int64_t>((512 << 20) / bytes, 12, 500));
    std::vector<double> raw_us, our_us, raw_rate, our_rate;
    for (int round = 0; round < kRounds; ++round) {
      PingPong(world.get(), raw, process, bytes, pings, &raw_us);
      PingPong(world.get(), ours, process, bytes, pings, &our_us);
      raw_rate.push_back(Stream(world.get(), raw, process, bytes, messages));
      our_rate.push_back(Stream(world.get(), ours, process, bytes, messages));
    }
    // The receiver's time ends with the last message, the sender's with the last piece handed to the kernel.
    if (process != 1) continue;
    std::printf("%10lld %12.1f %12.1f %8.1f %12.2f %12.2f %7.0f%%\n", static_cast<long long>(bytes), Median(raw_us),
                Median(our_us), Median(our_us) - Median(raw_us), Median(raw_rate), Median(our_rate),
                100 * Median(our_rate) / Median(raw_rate));
    std::fflush(stdout);
  }
  return 0;
}

// One rank's part of a collective of `ranks`, whose `all` is `bytes`.
double RunCollective(World* world, Transport* end, bool all_to_all, int ranks, std::vector<std::byte>* mine,
                     std::vector<std::byte>* all) {
  const int64_t bytes = static_cast<int64_t>(all->size());
  const std::vector<int64_t> parts(ranks, bytes / ranks);
  const TensorView whole{all->data(), DType::kI32, {bytes / 4}};
  const TensorView own{mine->data(), DType::kI32, {all_to_all ? bytes / 4 : bytes / ranks / 4}};
  const Nanoseconds begin = world->Now();
  CHECK_OK(world->Wait(all_to_all ? end->AllToAll(GroupId(0), own, parts, whole, DoneEvent())
                                  : end->AllGather(GroupId(0), own, {}, whole, DoneEvent())));
  return static_cast<double>(bytes) * ranks / static_cast<double>(world->Now() - begin);
}

void MeasureRank(World* world, Transport* end, int ranks, absl::string_view where) {
  for (const int64_t bytes : {int64_t{64} << 10, int64_t{8} << 20, int64_t{256} << 20}) {
    std::vector<std::byte> mine(bytes, std::byte{1}), all(bytes, std::byte{2});
    std::vector<double> rates[2];
    for (int round = 0; round < kRounds; ++round) {
      for (const bool all_to_all : {false, true}) {
        rates[all_to_all].push_back(RunCollective(world, end, all_to_all, ranks, &mine, &all));
      }
    }
    if (end->rank().value() != 0) continue;
    std::printf("%d ranks, %-15s %8lld KiB each: all-gather %6.2f GB/s  all-to-all %6.2f GB/s\n", ranks,
                std::string(where).c_str(), static_cast<long long>(bytes >> 10), Median(rates[0]), Median(rates[1]));
    std::fflush(stdout);
  }
}

GroupSpec AllRanks(int ranks) {
  GroupSpec group{.id = GroupId(0), .queue = QueueId(0), .purpose = "all"};
  for (int rank = 0; rank < ranks; ++rank) group.members.push_back(WorldRank(rank));
  return group;
}

void MeasureInProcess(int ranks) {
  const auto world = NewRealWorld();
  InProcessHub hub(world.get(), ranks);
  std::vector<std::unique_ptr<Transport>> ends;
  for (int rank = 0; rank < ranks; ++rank) {
    auto end = hub.Open(WorldRank(rank), {}, {AllRanks(ranks)});
    CHECK_OK(end.status());
    ends.push_back(*std::move(end));
  }
  std::vector<EventRef> tasks;
  for (int rank = 0; rank < ranks; ++rank) {
    tasks.push_back(world->Spawn({.name = "rank"},
                                 [&, rank] { MeasureRank(world.get(), ends[rank].get(), ranks, "one process"); }));
  }
  for (const EventRef& task : tasks) CHECK_OK(world->Wait(task));
}

int MeasureBetweenProcesses(int ranks, int process, const ExchangeBlobs& exchange) {
  const auto world = NewRealWorld();
  GlooHubOptions options{.process = process, .exchange = exchange};
  for (int rank = 0; rank < ranks; ++rank) options.process_of.push_back(rank);
  GlooHub hub(world.get(), options);
  auto end = hub.Open(WorldRank(process), {}, {AllRanks(ranks)});
  CHECK_OK(end.status());
  CHECK_OK(hub.Connect());
  MeasureRank(world.get(), end->get(), ranks, "processes, Gloo");
  return 0;
}

void Main(const std::vector<std::string>& what) {
  const auto wants = [&](absl::string_view name) {
    return what.empty() || std::find(what.begin(), what.end(), name) != what.end();
  };
  if (wants("channels")) ForkedProcesses(2, MeasureChannels).Join();
  if (!wants("collectives")) return;
  for (const int ranks : {2, 4}) {
    ForkedProcesses(ranks, [&](int process, const ExchangeBlobs& exchange) {
      return MeasureBetweenProcesses(ranks, process, exchange);
    }).Join();
  }
  for (const int ranks : {2, 4}) MeasureInProcess(ranks);
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) { sluice::Main({argv + 1, argv + argc}); }
