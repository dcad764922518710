// What a run's report says of the steps' times: made from the timelines of its last steps, whose caches are warm.
#pragma once

#include <cstdint>
#include <deque>

#include "runtime/planner/plan.h"
#include "runtime/trainer/report.h"
#include "scheduler/timeline.h"

namespace sluice {

// Where ranks run ahead of each other the span counts, else the makespan.
double BubbleOf(const Plan& plan, const TimelineMetrics& metrics);

class MeasuredSteps {
 public:
  // The plan outlives it.
  explicit MeasuredSteps(const Plan* plan) : plan_(*plan) {}

  struct Place {
    int64_t number = 0;  // of the step in the run, from 0
    int64_t steps = 0;   // of the run
  };
  // The first ones don't count in a run of several: they warm up caches, pages and the clock.
  void Add(Timeline timeline, const Place& place);
  // The breakdown, stragglers, bubbles and step times.
  void FillIn(TrainReport* report) const;

 private:
  Nanoseconds StepTime(const Timeline& timeline) const;

  const Plan& plan_;
  std::deque<Timeline> timelines_;
};

}  // namespace sluice
