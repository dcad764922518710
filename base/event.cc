#include "base/event.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace sluice {

absl::Status Signal::status() const {
  CHECK(Done()) << "status of a pending event";
  return status_;
}

bool Signal::Watch(Waker* waker) {
  std::lock_guard lock(mutex_);
  if (done_.load(std::memory_order_relaxed)) return false;
  wakers_.push_back(waker);
  return true;
}

void Signal::Unwatch(Waker* waker) {
  std::lock_guard lock(mutex_);
  auto found = std::find(wakers_.begin(), wakers_.end(), waker);
  if (found != wakers_.end()) wakers_.erase(found);
}

// Watchers are woken under the lock: once Unwatch() has returned, nobody will call the waker any more.
bool Signal::Set(absl::Status status, Nanoseconds began, Nanoseconds ended) {
  std::lock_guard lock(mutex_);
  if (done_.load(std::memory_order_relaxed)) return false;
  status_ = std::move(status);
  began_ = began;
  ended_ = ended;
  done_.store(true, std::memory_order_release);
  for (Waker* waker : wakers_) waker->Wake();
  wakers_.clear();
  return true;
}

void Signal::Reset() {
  std::lock_guard lock(mutex_);
  CHECK(wakers_.empty()) << "a signal went back to its pool with " << wakers_.size() << " watchers";
  done_.store(false, std::memory_order_relaxed);
  status_ = absl::OkStatus();
}

EventRef DoneEvent() {
  static const EventRef* const done = [] {
    auto signal = MakeRef<Signal>();
    signal->Set(absl::OkStatus(), 0);
    return new EventRef(signal);
  }();
  return *done;
}

}  // namespace sluice
