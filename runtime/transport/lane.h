// What the in-process hub keeps of pending operations: one lane per rank and queue, a ring in posting order.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "base/event.h"
#include "kernels/transport.h"

namespace sluice::internal {

// A posted send, receive or collective. `target` is the index of its channel or group in the hub.
struct Operation {
  enum class Kind : uint8_t { kSend, kRecv, kAllGather, kAllToAll };
  Kind kind = Kind::kSend;
  bool moving = false;  // the hub's task copies for it, without the lock
  size_t target = 0;
  Slot* slot = nullptr;
  TensorView mine, all;
  absl::Span<const int64_t> parts;
  EventRef after;
  Ref<Signal> done;

  bool is_collective() const { return kind == Kind::kAllGather || kind == Kind::kAllToAll; }
};

class Lane {
 public:
  Lane(WorldRank rank, QueueId queue) : rank_(rank), queue_(queue) {}
  WorldRank rank() const { return rank_; }
  QueueId queue() const { return queue_; }
  size_t size() const { return size_; }
  Operation& operator[](size_t i) { return ring_[(first_ + i) % ring_.size()]; }
  Operation* head() { return size_ == 0 ? nullptr : &ring_[first_]; }

  void Push(Operation operation) {
    if (size_ == ring_.size()) Grow();
    ring_[(first_ + size_++) % ring_.size()] = std::move(operation);
  }
  // Takes out the operation at the head and returns what tells that it is done.
  Ref<Signal> Take() {
    Operation operation = std::move(ring_[first_]);
    first_ = (first_ + 1) % ring_.size();
    --size_;
    return std::move(operation.done);
  }
  // Completes the operation at the head and takes it out.
  void Pop(const absl::Status& status, Nanoseconds began, Nanoseconds ended) { Take()->Set(status, began, ended); }

 private:
  void Grow() {
    std::vector<Operation> ring(ring_.size() * 2);
    for (size_t i = 0; i < size_; ++i) ring[i] = std::move((*this)[i]);
    ring_.swap(ring);
    first_ = 0;
  }

  WorldRank rank_;
  QueueId queue_;
  std::vector<Operation> ring_{16};
  size_t first_ = 0;
  size_t size_ = 0;
};

}  // namespace sluice::internal
