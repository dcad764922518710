// Reference-counted objects that go back to a pool instead of being freed, so that the hot path allocates nothing after
// warm-up. T has a Reset() that makes it as good as new. Threads: any thread may take and drop. An object may outlive
// the pool's other handles: it keeps the pool alive. Made by MakeRef.
#pragma once

#include <mutex>
#include <utility>

#include "base/ref.h"

namespace sluice {

template <class T>
class ObjectPool final : public RefCounted {
 public:
  ~ObjectPool() override {
    while (free_ != nullptr) delete std::exchange(free_, free_->next);
  }

  // Grows by many at once: how many are out at a time varies a little with timing, and must not make a later step
  // allocate.
  Ref<T> Take() {
    constexpr int kGrowth = 64;
    Pooled* object = nullptr;
    {
      std::lock_guard lock(mutex_);
      const int growth = free_ == nullptr ? kGrowth : 0;
      for (int i = 0; i < growth; ++i) {
        auto* fresh = new Pooled;
        fresh->next = std::exchange(free_, fresh);
      }
      object = std::exchange(free_, free_->next);
    }
    object->pool = Ref<ObjectPool>(this);
    return Ref<T>(object);
  }

 private:
  struct Pooled final : public T {
    // The pool's handle is dropped last: it may be what keeps the pool, and with it this object, alive.
    void OnUnreferenced() override {
      const Ref<ObjectPool> home = std::move(pool);
      this->Reset();
      std::lock_guard lock(home->mutex_);
      next = home->free_;
      home->free_ = this;
    }

    Pooled* next = nullptr;
    Ref<ObjectPool> pool;
  };

  std::mutex mutex_;
  Pooled* free_ = nullptr;  // a list through the objects themselves
};

}  // namespace sluice
