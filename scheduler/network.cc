#include "scheduler/network.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace sluice {

Network::Network(const NetworkOptions& options, int ranks) : options_(options), sends_(ranks), receives_(ranks) {}

void Network::Post(const Message& message) {
  size_t index = messages_.size();
  if (unused_.empty()) {
    messages_.emplace_back();
  } else {
    index = unused_.back();
    unused_.pop_back();
  }
  messages_[index] = {.message = message};
  AddEvent(message.ready_ns, EventKind::kReady, index);
}

std::optional<Network::Delivery> Network::Next() {
  while (!events_.empty() || !flows_.empty()) {
    const auto [flow, flow_end_ns] = FirstFlow();
    if (events_.empty() || flow_end_ns < std::get<int64_t>(events_.top())) {
      MoveFlows(flow_end_ns);
      const size_t index = flows_[flow].index;
      flows_.erase(flows_.begin() + static_cast<std::ptrdiff_t>(flow));
      SetRates();
      return Deliver(index);
    }
    const auto [time, order, kind, index] = events_.top();
    events_.pop();
    MoveFlows(time);
    switch (kind) {
      case EventKind::kReady:
        waiting_.push_back(index);
        BeginWhatCan();
        break;
      case EventKind::kOnLine:
        flows_.push_back({index, messages_[index].message.bytes, 0});
        SetRates();
        break;
      case EventKind::kArrived:
        return Deliver(index);
    }
  }
  return std::nullopt;
}

bool Network::EnginesFree(const Message& message) const {
  const size_t from = message.from.index(), to = message.to.index();
  switch (options_.engines) {
    case TransferEngines::kUnlimited:
      return true;
    case TransferEngines::kTwo:
      return !sends_[from] && !receives_[to];
    case TransferEngines::kOne:
      return !sends_[from] && !receives_[from] && !sends_[to] && !receives_[to];
  }
  return true;
}

void Network::TakeEngines(const Message& message, bool taken) {
  sends_[message.from.index()] = receives_[message.to.index()] = taken;
}

void Network::BeginWhatCan() {
  std::erase_if(waiting_, [&](size_t index) {
    Delivery& delivery = messages_[index];
    if (!EnginesFree(delivery.message)) return false;
    TakeEngines(delivery.message, true);
    delivery.begin_ns = now_ns_;
    if (!BetweenHosts(delivery.message)) {
      AddEvent(now_ns_ + delivery.message.alone_ns, EventKind::kArrived, index);
    } else {
      const bool limited = options_.host_bytes_per_second > 0 && delivery.message.bytes > 0;
      AddEvent(now_ns_ + options_.host_latency_ns, limited ? EventKind::kOnLine : EventKind::kArrived, index);
    }
    return true;
  });
}

void Network::SetRates() {
  const size_t hosts = sends_.size() / static_cast<size_t>(std::max(1, options_.ranks_per_host)) + 1;
  std::vector<int> out(hosts), in(hosts);
  for (const Flow& flow : flows_) {
    ++out[HostOf(messages_[flow.index].message.from)];
    ++in[HostOf(messages_[flow.index].message.to)];
  }
  for (Flow& flow : flows_) {
    const Message& message = messages_[flow.index].message;
    flow.rate = options_.host_bytes_per_second * 1e-9 / std::max(out[HostOf(message.from)], in[HostOf(message.to)]);
  }
}

void Network::MoveFlows(int64_t until_ns) {
  for (Flow& flow : flows_) flow.left -= flow.rate * static_cast<double>(until_ns - now_ns_);
  now_ns_ = until_ns;
}

std::pair<size_t, int64_t> Network::FirstFlow() const {
  std::pair<size_t, int64_t> first = {0, std::numeric_limits<int64_t>::max()};
  for (size_t i = 0; i < flows_.size(); ++i) {
    const int64_t end_ns =
        now_ns_ + static_cast<int64_t>(std::ceil(std::max(0.0, flows_[i].left) / flows_[i].rate - 1e-6));
    if (end_ns < first.second) first = {i, end_ns};
  }
  return first;
}

Network::Delivery Network::Deliver(size_t index) {
  const Delivery delivery = std::exchange(messages_[index], {});
  unused_.push_back(index);
  TakeEngines(delivery.message, false);
  BeginWhatCan();
  return {delivery.message, delivery.begin_ns, now_ns_};
}

}  // namespace sluice
