#include "runtime/transport/nccl_event.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace sluice::internal {

// The flag is asked after the device: it is set before the device can end what is aborted.
bool NcclEvent::Done() const {
  State state = state_.load(std::memory_order_acquire);
  if (state == State::kBound && on_device_->Done() && on_device_->status().ok() && !aborted_->is_set()) {
    state_.compare_exchange_strong(state, State::kEnded, std::memory_order_acq_rel);
    state = state_.load(std::memory_order_acquire);
  }
  return state == State::kEnded || state == State::kFailed;
}

absl::Status NcclEvent::status() const { return Is(State::kFailed) ? status_ : absl::OkStatus(); }
Nanoseconds NcclEvent::began() const { return Is(State::kFailed) ? failed_at_ : on_device_->began(); }
Nanoseconds NcclEvent::ended() const { return Is(State::kFailed) ? failed_at_ : on_device_->ended(); }
bool NcclEvent::NeedsPolling() const { return Is(State::kBound) && on_device_->NeedsPolling(); }
const Event* NcclEvent::StandsFor() const {
  return Is(State::kBound) || Is(State::kEnded) ? on_device_->StandsFor() : nullptr;
}

bool NcclEvent::Watch(Waker* waker) {
  std::lock_guard lock(mutex_);
  if (Done()) return false;
  wakers_.push_back(waker);
  if (on_device_) on_device_->Watch(waker);
  return true;
}

void NcclEvent::Unwatch(Waker* waker) {
  std::lock_guard lock(mutex_);
  const auto found = std::find(wakers_.begin(), wakers_.end(), waker);
  if (found != wakers_.end()) wakers_.erase(found);
  if (on_device_) on_device_->Unwatch(waker);
}

// Whoever watches is woken too: it may have to poll now, or tell a device to wait.
void NcclEvent::Bind(EventRef on_device, Ref<AbortFlag> aborted) {
  std::lock_guard lock(mutex_);
  CHECK(Is(State::kUnbound)) << "bound twice, or after it had failed";
  on_device_ = std::move(on_device);
  aborted_ = std::move(aborted);
  state_.store(State::kBound, std::memory_order_release);
  for (Waker* waker : wakers_) {
    on_device_->Watch(waker);
    waker->Wake();
  }
}

void NcclEvent::Fail(absl::Status status, Nanoseconds now) {
  std::lock_guard lock(mutex_);
  if (Is(State::kEnded) || Is(State::kFailed)) return;
  status_ = std::move(status);
  failed_at_ = now;
  State state = state_.load(std::memory_order_acquire);
  if (!state_.compare_exchange_strong(state, State::kFailed, std::memory_order_acq_rel)) return;
  for (Waker* waker : wakers_) waker->Wake();
}

void NcclEvent::Reset() {
  std::lock_guard lock(mutex_);
  CHECK(wakers_.empty()) << "an event went back to its pool with " << wakers_.size() << " watchers";
  state_.store(State::kUnbound, std::memory_order_relaxed);
  on_device_ = nullptr;
  aborted_ = nullptr;
  status_ = absl::OkStatus();
}

}  // namespace sluice::internal
