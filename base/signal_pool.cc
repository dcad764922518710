#include "base/signal_pool.h"

namespace sluice {

EventRef Doorbell::Arm() {
  std::lock_guard lock(mutex_);
  if (!armed_ || armed_->Done()) armed_ = pool_->Take();
  return armed_;
}

// Without the lock, or the sleeper would wake only to wait for it.
void Doorbell::Ring(Nanoseconds now) {
  Ref<Signal> armed;
  {
    std::lock_guard lock(mutex_);
    armed = armed_;
  }
  if (armed) armed->Set(absl::OkStatus(), now);
}

}  // namespace sluice
