// Regular ticks of a state machine, which also tell how long the process itself was held up (stopped, swapped out): in
// that time it heard nobody, and that says nothing about the others.
#pragma once

#include <algorithm>

#include "base/time.h"

namespace sluice {

class TickClock {
 public:
  // Often enough to find a silence of `limit`.
  TickClock(Nanoseconds limit, Nanoseconds now)
      : period_(std::clamp(limit / 20, kMillisecond, kSecond / 2)), next_(now + period_) {}
  Nanoseconds next() const { return next_; }
  // Returns by how much this tick is late; 0 when it is not worth mention.
  Nanoseconds Tick(Nanoseconds now) {
    const Nanoseconds late = now - next_;
    next_ = now + period_;
    return late > period_ ? late : 0;
  }

 private:
  Nanoseconds period_;
  Nanoseconds next_;
};

}  // namespace sluice
