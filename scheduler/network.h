// Messages that compete: for the engines that a rank moves them with, and for the lines between hosts. Discrete events
// in time's order; used by the simulation when messages are not simply each by itself.
#pragma once

#include <cstdint>
#include <optional>
#include <queue>
#include <tuple>
#include <vector>

#include "base/ids.h"

namespace sluice {

enum class TransferEngines : uint8_t {
  kUnlimited,  // as many messages at a time as queues allow
  kTwo,        // one being sent and one being received by each rank
  kOne,        // one, sent or received, by each rank
};

struct NetworkOptions {
  TransferEngines engines = TransferEngines::kUnlimited;
  // Ranks of a host stand side by side; 0: all ranks are on one host, and nothing below matters.
  int ranks_per_host = 0;
  int64_t host_latency_ns = 0;  // of a message between hosts, in place of Costs::transfer_latency_ns
  // Of each host's line, each way; 0: unlimited. The messages in flight on a line share it evenly, and one of them
  // moves as fast as the more crowded of its two lines lets it.
  double host_bytes_per_second = 0;

  bool Competes() const { return engines != TransferEngines::kUnlimited || ranks_per_host > 0; }
};

class Network {
 public:
  struct Message {
    PipelineRank from, to;
    int64_t ready_ns = 0;  // both ends wait for it from then on
    int64_t alone_ns = 0;  // how long it takes within a host
    double bytes = 0;      // between hosts
    PipelineRank rank;     // the caller's, comes back
    int32_t position = 0;
  };
  struct Delivery {
    Message message;
    int64_t begin_ns = 0, end_ns = 0;
  };

  Network(const NetworkOptions& options, int ranks);

  // REQUIRES: not ready before the end of what Next gave last.
  void Post(const Message& message);
  // The message that arrives first. Of those that are ready, the one that has been so for longest begins first, unless
  // an engine that it needs is taken. Nothing if none is posted.
  std::optional<Delivery> Next();

 private:
  struct Flow {  // over the lines between hosts
    size_t index;
    double left;  // bytes
    double rate;  // bytes per ns
  };
  enum class EventKind : uint8_t { kReady, kOnLine, kArrived };
  using Event = std::tuple<int64_t, uint64_t, EventKind, size_t>;  // time, order of posting, what, which message

  int HostOf(PipelineRank rank) const { return rank.value() / options_.ranks_per_host; }
  bool BetweenHosts(const Message& message) const {
    return options_.ranks_per_host > 0 && HostOf(message.from) != HostOf(message.to);
  }
  void AddEvent(int64_t time, EventKind kind, size_t index) { events_.emplace(time, order_++, kind, index); }
  bool EnginesFree(const Message& message) const;
  void TakeEngines(const Message& message, bool taken);
  void BeginWhatCan();
  void SetRates();
  void MoveFlows(int64_t until_ns);
  // The flow that ends first, and when.
  std::pair<size_t, int64_t> FirstFlow() const;
  Delivery Deliver(size_t index);

  const NetworkOptions options_;
  int64_t now_ns_ = 0;
  uint64_t order_ = 0;
  std::vector<Delivery> messages_;  // by index
  std::vector<size_t> unused_;      // indices to use again
  std::vector<size_t> waiting_;     // ready, in the order of getting so
  std::vector<Flow> flows_;
  std::vector<char> sends_, receives_;  // per rank: an engine is taken
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
};

}  // namespace sluice
