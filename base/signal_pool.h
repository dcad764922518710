// Pooled signals, and a doorbell, which lets a task sleep until another one has something for it.
#pragma once

#include <mutex>

#include "base/event.h"
#include "base/pool.h"
#include "base/time.h"

namespace sluice {

using SignalPool = ObjectPool<Signal>;

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
