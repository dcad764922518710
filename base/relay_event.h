// An event that is told later for which other one it stands: a transport's, whose device event exists only once both
// ends have been posted. From then on it ends when that does. Where that ends in an error, this one ends when it is
// told how to say so.
#pragma once

#include <atomic>
#include <mutex>
#include <vector>

#include "base/event.h"
#include "base/pool.h"

namespace sluice {

class RelayEvent : public Event {
 public:
  bool Done() const override;
  absl::Status status() const override;
  Nanoseconds began() const override;
  Nanoseconds ended() const override;
  bool Watch(Waker* waker) override;
  void Unwatch(Waker* waker) override;
  bool NeedsPolling() const override;
  const Event* StandsFor() const override;

  // At most once, and not after Fail().
  void Bind(EventRef target);
  // Ends it. REQUIRES: it is not bound, or its target has ended in an error.
  void Fail(absl::Status status, Nanoseconds now);

 protected:
  void Reset();

 private:
  enum class State : uint8_t { kUnbound, kBound, kFailed };
  bool Is(State state) const { return state_.load(std::memory_order_acquire) == state; }

  std::atomic<State> state_{State::kUnbound};
  mutable std::mutex mutex_;
  EventRef target_;  // once bound, until the event goes back to its pool
  absl::Status status_;
  Nanoseconds failed_at_ = 0;
  std::vector<Waker*> wakers_;
};

using RelayPool = ObjectPool<RelayEvent>;

}  // namespace sluice
