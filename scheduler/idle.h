// Why the ranks of a step were idle: a pure function of a timeline, simulated or measured.
#pragma once

#include <cstdint>
#include <vector>

#include "scheduler/timeline.h"

namespace sluice {

// One rank's idle time within the makespan, by cause. The parts and `busy_ns` add up to the makespan exactly.
struct IdleCauses {
  int64_t busy_ns = 0;        // computing (what overlaps counts once)
  int64_t warm_up_ns = 0;     // before the rank's first F, B, I or W
  int64_t cool_down_ns = 0;   // after its last one, until the last rank has ended
  int64_t activation_ns = 0;  // before an F whose input had not been made or sent yet
  int64_t gradient_ns = 0;    // before a B or I whose gradient had not been made or sent yet
  int64_t transfer_ns = 0;    // while the input of the next action was under way
  int64_t other_ns = 0;       // with the input there: waiting for a slot, or for the action to be started

  int64_t idle_ns() const { return warm_up_ns + cool_down_ns + activation_ns + gradient_ns + transfer_ns + other_ns; }
  friend bool operator==(const IdleCauses&, const IdleCauses&) = default;
};

// Per rank; a rank that computes nothing is in its warm-up all the time. The optimizer step and what comes before it
// lie outside the makespan (TimelineMetrics). Without spans of transfers (SimulateSchedule) a transfer's time counts as
// waiting for its message. O(n log n) in the number of spans.
std::vector<IdleCauses> ExplainIdle(const Timeline& timeline);

}  // namespace sluice
