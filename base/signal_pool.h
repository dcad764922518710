// Signals that go back to a pool instead of being freed, so that the hot path allocates nothing after warm-up; and a
// doorbell, which lets a task sleep until another one has something for it. Threads: any thread may take, set and drop.
// A signal may outlive the pool's other handles: it keeps the pool alive. Made by MakeRef.
#pragma once

#include <mutex>

#include "base/event.h"
#include "base/time.h"

namespace sluice {

class SignalPool final : public RefCounted {
 public:
  ~SignalPool() override;
  // A pending signal.
  Ref<Signal> Take();

 private:
  class PooledSignal;
  std::mutex mutex_;
  PooledSignal* free_ = nullptr;  // a list through the signals themselves
};

// One sleeper, many who ring. The sleeper calls Arm(), then looks for work, then waits for the armed event; who brings
// work makes it visible first and rings then. So no ring is lost.
class Doorbell {
 public:
  explicit Doorbell(Ref<SignalPool> pool) : pool_(std::move(pool)) {}
  // The event of the next ring.
  EventRef Arm();
  void Ring(Nanoseconds now);

 private:
  const Ref<SignalPool> pool_;
  std::mutex mutex_;
  Ref<Signal> armed_;
};

}  // namespace sluice
