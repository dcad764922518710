#include "runtime/trainer/measured_steps.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/check.h"
#include "runtime/trainer/breakdown.h"
#include "scheduler/simulate.h"

namespace sluice {
namespace {

// Of the last steps, so many.
constexpr size_t kMeasuredSteps = 32;
constexpr int64_t kWarmUpSteps = 2;

// What each rank computed in all these steps: what slows a rank down may leave out single ones.
std::vector<RankBreakdown> ComputeOf(const std::vector<Timeline>& steps) {
  std::vector<RankBreakdown> ranks(steps.front().ranks);
  for (const Timeline& step : steps) {
    const std::vector<RankBreakdown> one = BreakDown(step);
    for (size_t rank = 0; rank < ranks.size(); ++rank) ranks[rank].compute_ns += one[rank].compute_ns;
  }
  return ranks;
}

}  // namespace

double BubbleOf(const Plan& plan, const TimelineMetrics& metrics) {
  return plan.post_validation.has_value() ? metrics.span_bubble : metrics.makespan_bubble;
}

void MeasuredSteps::Add(Timeline timeline, const Place& place) {
  if (place.number < kWarmUpSteps && place.steps > kWarmUpSteps) return;
  timelines_.push_back(std::move(timeline));
  if (timelines_.size() > kMeasuredSteps) timelines_.pop_front();
}

// Of the step alone; where ranks run ahead of each other, of the rank that takes longest.
Nanoseconds MeasuredSteps::StepTime(const Timeline& timeline) const {
  if (!plan_.post_validation.has_value()) return Measure(timeline).step_ns;
  std::vector<Nanoseconds> begins(timeline.ranks, kForever), ends(timeline.ranks, 0);
  for (const Span& span : timeline.spans) {
    if (IsTransfer(span.action.kind)) continue;
    const size_t rank = span.rank.index();
    if (IsCompute(span.action.kind)) begins[rank] = std::min(begins[rank], span.begin_ns);
    ends[rank] = std::max(ends[rank], span.end_ns);
  }
  Nanoseconds longest = 0;
  for (size_t rank = 0; rank < begins.size(); ++rank) longest = std::max(longest, ends[rank] - begins[rank]);
  return longest;
}

void MeasuredSteps::FillIn(TrainReport* report) const {
  report->planned_bubble = BubbleOf(plan_, plan_.metrics);
  if (timelines_.empty()) return;
  std::vector<Timeline> timelines(timelines_.begin(), timelines_.end());
  std::sort(timelines.begin(), timelines.end(),
            [this](const Timeline& a, const Timeline& b) { return StepTime(a) < StepTime(b); });
  const Timeline& median = timelines[timelines.size() / 2];
  report->breakdown = BreakDown(median);
  report->stragglers = FindStragglers(ComputeOf(timelines), BreakDown(plan_.predicted), plan_.job.layout.grid());
  report->measured_bubble = BubbleOf(plan_, Measure(median));
  report->measured_step = StepTime(median);
  const Costs costs =
      MeasuredCosts(PipelinesOf(timelines, plan_.job.layout.grid()), plan_.training.placement, plan_.costs);
  const auto predicted = Simulate(plan_.training, costs);
  CHECK(predicted.ok()) << predicted.status();  // it has been proven, and has just run
  const TimelineMetrics metrics = Measure(*predicted);
  report->predicted_bubble = BubbleOf(plan_, metrics);
  report->predicted_step = StepTime(*predicted);
}

}  // namespace sluice
