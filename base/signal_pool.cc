#include "base/signal_pool.h"

#include <utility>

namespace sluice {

class SignalPool::PooledSignal final : public Signal {
 public:
  void Lend(SignalPool* pool) { pool_ = Ref<SignalPool>(pool); }

  PooledSignal* next = nullptr;

 private:
  // The pool's handle is dropped last: it may be what keeps the pool, and with it this signal, alive.
  void OnUnreferenced() override {
    const Ref<SignalPool> pool = std::move(pool_);
    Reset();
    std::lock_guard lock(pool->mutex_);
    next = pool->free_;
    pool->free_ = this;
  }

  Ref<SignalPool> pool_;
};

SignalPool::~SignalPool() {
  while (free_ != nullptr) delete std::exchange(free_, free_->next);
}

// Grows by many at once: how many are out at a time varies a little with timing, and must not make a later step
// allocate.
Ref<Signal> SignalPool::Take() {
  constexpr int kGrowth = 64;
  PooledSignal* signal = nullptr;
  {
    std::lock_guard lock(mutex_);
    const int growth = free_ == nullptr ? kGrowth : 0;
    for (int i = 0; i < growth; ++i) {
      auto* fresh = new PooledSignal;
      fresh->next = std::exchange(free_, fresh);
    }
    signal = std::exchange(free_, free_->next);
  }
  signal->Lend(this);
  return Ref<Signal>(signal);
}

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
