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

Ref<Signal> SignalPool::Take() {
  PooledSignal* signal = nullptr;
  {
    std::lock_guard lock(mutex_);
    if (free_ != nullptr) signal = std::exchange(free_, free_->next);
  }
  if (signal == nullptr) signal = new PooledSignal;
  signal->Lend(this);
  return Ref<Signal>(signal);
}

EventRef Doorbell::Arm() {
  std::lock_guard lock(mutex_);
  if (!armed_ || armed_->Done()) armed_ = pool_->Take();
  return armed_;
}

void Doorbell::Ring(Nanoseconds now) {
  std::lock_guard lock(mutex_);
  if (armed_) armed_->Set(absl::OkStatus(), now);
}

}  // namespace sluice
