#include "kernels/cpu/event_pool.h"

#include <utility>

namespace sluice::cpu {

class EventPool::PooledSignal final : public Signal {
 public:
  ~PooledSignal() override = default;
  Ref<EventPool> pool;           // set while the signal is out
  PooledSignal* next = nullptr;  // set while it is in

 private:
  void OnUnreferenced() override {
    Reset();
    Ref<EventPool> home = std::move(pool);
    std::lock_guard lock(home->mutex_);
    next = std::exchange(home->free_, this);
  }
};

EventPool::~EventPool() {
  while (free_ != nullptr) delete std::exchange(free_, free_->next);
}

Ref<Signal> EventPool::Take() {
  PooledSignal* signal;
  {
    std::lock_guard lock(mutex_);
    signal = free_;
    if (signal != nullptr) free_ = signal->next;
  }
  if (signal == nullptr) signal = new PooledSignal;
  signal->pool = Ref<EventPool>(this);
  return Ref<Signal>(signal);
}

}  // namespace sluice::cpu
