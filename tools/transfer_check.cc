#include "tools/transfer_check.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status.h"
#include "base/world.h"
#include "kernels/cuda/factory.h"
#include "runtime/planner/text_table.h"
#include "runtime/transport/nccl_hub.h"
#include "runtime/transport/peer_hub.h"

namespace sluice::tools {
namespace {

// Over 64 MiB, so that nothing that NCCL or a link buffers holds a whole message.
constexpr int64_t kMessageBytes = int64_t{96} << 20;
constexpr int64_t kCheckedWords = 1024;
constexpr int kRounds = 3;  // of which the fastest counts; the first one also warms up

struct Gpu {
  std::unique_ptr<Device> device;
  std::unique_ptr<Stream> stream;
  Slot slot;
};

// One way to transfer, between ranks of which each is the GPU of its number.
using Open = std::function<absl::StatusOr<std::unique_ptr<Transport>>(WorldRank rank, Device* device,
                                                                      const std::vector<ChannelSpec>& channels)>;

class Check {
 public:
  explicit Check(World* world) : world_(world) {}

  absl::Status SetUp(int gpus) {
    std::vector<int> all;
    for (int gpu = 0; gpu < gpus; ++gpu) all.push_back(gpu);
    for (int gpu = 0; gpu < gpus; ++gpu) {
      Gpu& made = gpus_.emplace_back();
      ASSIGN_OR_RETURN(made.device, cuda::NewCudaDevice(world_, {.ordinal = gpu, .peers = all}));
      made.stream = made.device->NewStream("check");
      ASSIGN_OR_RETURN(made.slot.buffer, made.device->Allocate(kMessageBytes, "a message"));
    }
    return absl::OkStatus();
  }

  // `connect` is called once all have opened.
  absl::StatusOr<std::string> Table(const Open& open, const std::function<absl::Status()>& connect) {
    const int gpus = static_cast<int>(gpus_.size());
    std::vector<std::unique_ptr<Transport>> ends;
    for (int gpu = 0; gpu < gpus; ++gpu) {
      ASSIGN_OR_RETURN(ends.emplace_back(), open(WorldRank(gpu), gpus_[gpu].device.get(), ChannelsOf(gpu)));
    }
    RETURN_IF_ERROR(connect());
    std::vector<std::string> heading = {"from / to"};
    for (int gpu = 0; gpu < gpus; ++gpu) heading.push_back(absl::StrCat("GPU ", gpu));
    TextTable table(std::move(heading));
    for (int from = 0; from < gpus; ++from) {
      std::vector<std::string> row = {absl::StrCat("GPU ", from)};
      for (int to = 0; to < gpus; ++to) {
        Nanoseconds best = kForever;
        for (int round = 0; round < kRounds && from != to; ++round) {
          ASSIGN_OR_RETURN(const Nanoseconds took, Transfer(from, to, round, ends));
          best = std::min(best, took);
        }
        row.push_back(from == to ? "-" : absl::StrFormat("%.1f", static_cast<double>(kMessageBytes) / best));
      }
      table.Add(std::move(row));
    }
    return table.ToString({0});
  }

 private:
  ChannelId ChannelFrom(int from, int to) const { return ChannelId(from * static_cast<int>(gpus_.size()) + to); }
  std::vector<ChannelSpec> ChannelsOf(int gpu) const {
    std::vector<ChannelSpec> channels;
    for (int other = 0; other < static_cast<int>(gpus_.size()); ++other) {
      if (other == gpu) continue;
      for (const auto& [from, to] : {std::pair(gpu, other), std::pair(other, gpu)}) {
        channels.push_back({.id = ChannelFrom(from, to),
                            .sender = WorldRank(from),
                            .receiver = WorldRank(to),
                            .queue = QueueId(0),
                            .bytes = kMessageBytes,
                            .message = "bytes to check"});
      }
    }
    return channels;
  }

  // The time from the posts until both ends have ended.
  absl::StatusOr<Nanoseconds> Transfer(int from, int to, int round,
                                       const std::vector<std::unique_ptr<Transport>>& ends) {
    std::vector<int32_t> sent(kCheckedWords), received(kCheckedWords);
    for (int64_t i = 0; i < kCheckedWords; ++i) sent[i] = static_cast<int32_t>(1000 * from + 100 * to + 10 * round + i);
    gpus_[from].stream->CopyToDevice(sent.data(), End(from));
    RETURN_IF_ERROR(world_->Wait(gpus_[from].stream->Record()));
    const Nanoseconds began = world_->Now();
    const EventRef events[] = {ends[to]->Recv(ChannelFrom(from, to), &gpus_[to].slot, DoneEvent()),
                               ends[from]->Send(ChannelFrom(from, to), &gpus_[from].slot, DoneEvent())};
    for (const EventRef& event : events) RETURN_IF_ERROR(world_->Wait(event));
    const Nanoseconds took = world_->Now() - began;
    gpus_[to].stream->CopyToHost(End(to), received.data());
    RETURN_IF_ERROR(world_->Wait(gpus_[to].stream->Record()));
    if (sent != received)
      return absl::DataLossError(absl::StrCat("GPU ", to, " got other bytes than GPU ", from, " sent"));
    return took;
  }
  // The message's last words.
  TensorView End(int gpu) const {
    return {gpus_[gpu].slot.buffer.data() + kMessageBytes - 4 * kCheckedWords, DType::kI32, {kCheckedWords}};
  }

  World* const world_;
  std::vector<Gpu> gpus_;
};

absl::StatusOr<std::string> OverCopies(World* world, Check* check, int gpus) {
  PeerHub hub(world, gpus);
  return check->Table(
      [&](WorldRank rank, Device* device, const auto& channels) { return hub.Open(rank, device, channels, {}); },
      [] { return absl::OkStatus(); });
}

absl::StatusOr<std::string> OverNccl(World* world, Check* check, int gpus) {
  NcclHub hub(world, {.process_of = std::vector<int>(gpus, 0),
                      .exchange = [](const std::string&, std::string mine) -> absl::StatusOr<std::vector<std::string>> {
                        return std::vector<std::string>{std::move(mine)};
                      }});
  return check->Table(
      [&](WorldRank rank, Device* device, const auto& channels) { return hub.Open(rank, device, channels, {}); },
      [&] { return hub.Connect(); });
}

}  // namespace

absl::StatusOr<std::string> CheckTransfers() {
  ASSIGN_OR_RETURN(const std::vector<cuda::CudaDeviceInfo> found, cuda::FindCudaDevices());
  const int gpus = static_cast<int>(found.size());
  if (gpus < 2) return std::string("one GPU: there is nothing to transfer to\n");
  const std::unique_ptr<World> world = NewRealWorld();
  Check check(world.get());
  RETURN_IF_ERROR(check.SetUp(gpus));
  ASSIGN_OR_RETURN(const std::string copies, OverCopies(world.get(), &check, gpus));
  const absl::StatusOr<std::string> nccl = OverNccl(world.get(), &check, gpus);
  if (!nccl.ok() && nccl.status().code() != absl::StatusCode::kFailedPrecondition) return nccl.status();
  return absl::StrCat("GB/s of a message of ", kMessageBytes >> 20, " MiB, one at a time, as within a process:\n",
                      copies, "and over NCCL:\n",
                      nccl.ok() ? *nccl : absl::StrCat("  none: ", nccl.status().message(), "\n"));
}

}  // namespace sluice::tools
