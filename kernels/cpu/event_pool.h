// Signals that return to a pool instead of being freed, so that recording an event allocates nothing after warm-up.
// Threads: any thread may take one, and any may drop the last handle to one. A signal may outlive the pool's owner: it
// keeps the pool alive until it is back.
#pragma once

#include <mutex>

#include "base/event.h"

namespace sluice::cpu {

class EventPool final : public RefCounted {
 public:
  ~EventPool() override;
  // A pending signal.
  Ref<Signal> Take();

 private:
  class PooledSignal;
  std::mutex mutex_;
  PooledSignal* free_ = nullptr;  // a list through the signals themselves
};

}  // namespace sluice::cpu
