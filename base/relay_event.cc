#include "base/relay_event.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace sluice {

bool RelayEvent::Done() const {
  switch (state_.load(std::memory_order_acquire)) {
    case State::kUnbound:
      return false;
    case State::kBound:
      return target_->Done() && target_->status().ok();
    case State::kFailed:
      return true;
  }
  return false;
}

absl::Status RelayEvent::status() const { return Is(State::kFailed) ? status_ : absl::OkStatus(); }
Nanoseconds RelayEvent::began() const { return Is(State::kFailed) ? failed_at_ : target_->began(); }
Nanoseconds RelayEvent::ended() const { return Is(State::kFailed) ? failed_at_ : target_->ended(); }
bool RelayEvent::NeedsPolling() const { return Is(State::kBound) && target_->NeedsPolling(); }
const Event* RelayEvent::StandsFor() const { return Is(State::kBound) ? target_->StandsFor() : nullptr; }

bool RelayEvent::Watch(Waker* waker) {
  std::lock_guard lock(mutex_);
  if (Done()) return false;
  wakers_.push_back(waker);
  if (target_) target_->Watch(waker);
  return true;
}

void RelayEvent::Unwatch(Waker* waker) {
  std::lock_guard lock(mutex_);
  const auto found = std::find(wakers_.begin(), wakers_.end(), waker);
  if (found != wakers_.end()) wakers_.erase(found);
  if (target_) target_->Unwatch(waker);
}

// Whoever watches is woken too: what it stands for may have to be polled, or be waited for by a device.
void RelayEvent::Bind(EventRef target) {
  std::lock_guard lock(mutex_);
  CHECK(Is(State::kUnbound)) << "bound twice";
  target_ = std::move(target);
  state_.store(State::kBound, std::memory_order_release);
  for (Waker* waker : wakers_) {
    target_->Watch(waker);
    waker->Wake();
  }
}

void RelayEvent::Fail(absl::Status status, Nanoseconds now) {
  std::lock_guard lock(mutex_);
  CHECK(!target_ || (target_->Done() && !target_->status().ok())) << "it has ended well, or may do so";
  if (Is(State::kFailed)) return;
  status_ = std::move(status);
  failed_at_ = now;
  state_.store(State::kFailed, std::memory_order_release);
  for (Waker* waker : wakers_) waker->Wake();
}

void RelayEvent::Reset() {
  std::lock_guard lock(mutex_);
  CHECK(wakers_.empty()) << "a relay went back to its pool with " << wakers_.size() << " watchers";
  state_.store(State::kUnbound, std::memory_order_relaxed);
  target_ = nullptr;
  status_ = absl::OkStatus();
}

}  // namespace sluice
