// The end of an operation over NCCL: that of a device's event, once the operation has been issued. When communicators
// are aborted their work on the device ends too, as if well, so from that moment on an end is none: all that was not
// seen to have ended before ends with the abort's cause.
//
// Threads: as Event. Bind() and Fail() are the transport's.
#pragma once

#include <atomic>
#include <mutex>
#include <vector>

#include "base/event.h"
#include "base/pool.h"

namespace sluice::internal {

// Whether the communicators have been, or are about to be, aborted. Outlives the transport.
class AbortFlag : public RefCounted {
 public:
  void Set() { set_.store(true, std::memory_order_seq_cst); }
  bool is_set() const { return set_.load(std::memory_order_seq_cst); }

 private:
  std::atomic<bool> set_{false};
};

class NcclEvent : public Event {
 public:
  bool Done() const override;
  absl::Status status() const override;
  Nanoseconds began() const override;
  Nanoseconds ended() const override;
  bool Watch(Waker* waker) override;
  void Unwatch(Waker* waker) override;
  bool NeedsPolling() const override;
  const Event* StandsFor() const override;

  // At most once, before or after Watch().
  void Bind(EventRef on_device, Ref<AbortFlag> aborted);
  // Ends it, unless it has ended. REQUIRES: it is not bound, its device's event has failed, or the flag is set.
  void Fail(absl::Status status, Nanoseconds now);

 protected:
  void Reset();

 private:
  enum class State : uint8_t { kUnbound, kBound, kEnded, kFailed };
  bool Is(State state) const { return state_.load(std::memory_order_acquire) == state; }

  mutable std::atomic<State> state_{State::kUnbound};
  mutable std::mutex mutex_;
  EventRef on_device_;  // once bound, until the event goes back to its pool
  Ref<AbortFlag> aborted_;
  absl::Status status_;
  Nanoseconds failed_at_ = 0;
  std::vector<Waker*> wakers_;
};

using NcclEventPool = ObjectPool<NcclEvent>;

}  // namespace sluice::internal
