// How far process 0's clock is ahead of this process's, from heartbeats and their answers, as NTP does: an answer was
// given somewhere inside the round trip, so the shortest round trip of several tells most. The clocks of two hosts
// drift by some 10 us a second, so only recent ones count.
#pragma once

#include <deque>

#include "base/time.h"

namespace sluice {

// Process 0's World time = this process's + offset, give or take the uncertainty.
struct ClockOffset {
  Nanoseconds offset = 0;
  Nanoseconds uncertainty = kForever;  // half of the round trip; kForever: nothing is known yet
};

class ClockOffsetEstimate {
 public:
  // A heartbeat left at `sent`, process 0 answered at `answered` by its own clock, the answer came at `received`.
  // Ignores what can't be: an answer before its question.
  void Add(Nanoseconds sent, Nanoseconds answered, Nanoseconds received);
  ClockOffset best() const;

 private:
  std::deque<ClockOffset> samples_;
};

}  // namespace sluice
