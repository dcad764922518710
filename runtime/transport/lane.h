// What a hub that moves messages from the host keeps of pending operations: one lane per rank and queue, in posting
// order.
#pragma once

#include <utility>

#include "runtime/transport/request.h"
#include "runtime/transport/ring.h"

namespace sluice::internal {

struct Operation : Request {
  bool moving = false;  // the hub's task copies for it, without the lock
  Ref<Signal> done;
};

class Lane {
 public:
  Lane(WorldRank rank, QueueId queue) : rank_(rank), queue_(queue) {}
  WorldRank rank() const { return rank_; }
  QueueId queue() const { return queue_; }
  size_t size() const { return ring_.size(); }
  Operation& operator[](size_t i) { return ring_[i]; }
  Operation* head() { return ring_.size() == 0 ? nullptr : &ring_[0]; }

  void Push(Operation operation) { ring_.Push(std::move(operation)); }
  // Takes out the operation at the head and returns what tells that it is done.
  Ref<Signal> Take() { return ring_.Pop().done; }
  // Completes the operation at the head and takes it out.
  void Pop(const absl::Status& status, Nanoseconds began, Nanoseconds ended) { Take()->Set(status, began, ended); }

 private:
  WorldRank rank_;
  QueueId queue_;
  Ring<Operation> ring_;
};

}  // namespace sluice::internal
