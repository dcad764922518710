// An event of a CUDA stream. A stream that is held (stream.h) gives out events that have not been issued yet; from the
// moment they are, whoever wants to know polls, and other streams wait for them on the device.
// Threads: as Event; Issue() and Fail() are its stream's.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/event.h"
#include "base/pool.h"
#include "base/world.h"
#include "kernels/cuda/clock.h"
#include "kernels/cuda/staging.h"

namespace sluice::cuda {

// What an event has to know of its stream when it is issued.
struct IssueContext {
  World* world = nullptr;
  cudaStream_t stream = nullptr;
  Ref<TimedEventPool> timed_events;
  Ref<Staging> staging;
  uint64_t staged = 0;  // pieces of host copies that have ended once it is done
  Ref<TimedEvent> base;
  Ref<TimedEvent> began;                     // null: nothing was issued since the last record
  std::shared_ptr<const std::string> where;  // for errors
};

class CudaEvent : public Event {
 public:
  bool Done() const override;
  absl::Status status() const override;
  Nanoseconds began() const override { return began_; }
  Nanoseconds ended() const override { return ended_; }
  // Tells when it is issued, or has failed; after that it is polled.
  bool Watch(Waker* waker) override;
  void Unwatch(Waker* waker) override;
  bool NeedsPolling() const override { return true; }

  bool issued() const { return state_.load(std::memory_order_acquire) != State::kHeld; }
  // What a stream waits for, unless it failed. REQUIRES: issued().
  cudaEvent_t get() const { return end_->get(); }
  cudaStream_t stream() const { return context_.stream; }
  // Its stream has failed before it.
  bool failed() const { return state_.load(std::memory_order_acquire) == State::kDone && !status_.ok(); }

  // Records it on its stream.
  absl::Status Issue(IssueContext context);
  void Fail(const absl::Status& status, Nanoseconds now);

 protected:
  void Reset();

 private:
  enum class State : uint8_t { kHeld, kIssued, kDone };
  void Finish() const;  // REQUIRES: lock held
  void SetDone(absl::Status status, Nanoseconds began, Nanoseconds ended) const;
  void WakeAll();

  mutable std::atomic<State> state_{State::kHeld};
  mutable std::mutex mutex_;
  mutable IssueContext context_;
  Ref<TimedEvent> end_;
  mutable absl::Status status_;
  mutable Nanoseconds began_ = 0, ended_ = 0;
  std::vector<Waker*> wakers_;
};
using CudaEventPool = ObjectPool<CudaEvent>;

}  // namespace sluice::cuda
