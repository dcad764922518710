// The Timeline that the real executor measures on four simulated H100s is the one that the simulation of schedules
// predicts from the same costs.
#include <gtest/gtest.h>

#include <string>

#include "scheduler/simulate.h"
#include "scheduler/timeline.h"
#include "tests/equivalence/gpu_jobs.h"

namespace sluice {
namespace {

constexpr Nanoseconds kKernel = 100 * kMicrosecond;

// What each kind of action of each stage takes: all kernels take the same time, so it is how many there are.
Costs CostsIn(const Timeline& timeline, const gpu_sim::Link& link) {
  Costs costs = UniformCosts(timeline.stages, {});
  for (const Span& span : timeline.spans) {
    const int64_t duration = span.end_ns - span.begin_ns;
    const size_t stage = span.action.stage.index();
    switch (span.action.kind) {
      case ActionKind::kForward:
        costs.stages[stage].forward_ns = duration;
        break;
      case ActionKind::kBackward:
        costs.stages[stage].backward_ns = duration;
        break;
      case ActionKind::kInputGradient:
        costs.stages[stage].input_gradient_ns = duration;
        break;
      case ActionKind::kWeightGradient:
        costs.stages[stage].weight_gradient_ns = duration;
        break;
      case ActionKind::kSendForward:
        costs.stages[stage].activation_bytes = span.bytes;
        break;
      case ActionKind::kSendBackward:
        costs.stages[stage].gradient_bytes = span.bytes;
        break;
      default:
        break;
    }
  }
  costs.transfer_latency_ns = link.latency;
  costs.transfer_bytes_per_second = link.bytes_per_second;
  return costs;
}

TEST(GpuTimeline, IsThatOfTheSimulationWithinAHundredth) {
  struct Case {
    const char* schedule;
    int chunks;
    gpu_sim::Link link;
  };
  const gpu_sim::Link fast = gpu_sim::H100().peer;
  // A message of 2 KB takes as long as two kernels, a third of it latency.
  const gpu_sim::Link slow = {.bytes_per_second = 15e6, .latency = 70 * kMicrosecond};
  const GpuJobRunner runner;
  for (const Case& c : {Case{"gpipe", 1, fast}, {"1f1b", 1, slow}, {"zb_h1", 1, slow}, {"interleaved_1f1b", 2, slow}}) {
    gpu_sim::DeviceDescription device = gpu_sim::H100();
    device.peer = c.link;
    const GpuRun run = runner.OnGpus(
        {"gpt2", "bf16", 4, c.schedule, c.chunks, 4, 1, 2},
        {.device = device, .timing = gpu_sim::Timing::kModelled, .kernel_time = [](const auto&) { return kKernel; }});
    ASSERT_TRUE(run.numbers.ok()) << run.numbers.status();
    const Timeline& measured = run.outcomes.back().timeline;
    const auto predicted = Simulate(run.program, CostsIn(measured, c.link), {.issue = Issue::kAhead});
    ASSERT_TRUE(predicted.ok()) << predicted.status();
    const TimelineMetrics here = Measure(measured), there = Measure(*predicted);
    EXPECT_NEAR(here.makespan_ns, there.makespan_ns, 0.01 * there.makespan_ns) << c.schedule;
    EXPECT_NEAR(here.makespan_bubble, there.makespan_bubble, 0.01) << c.schedule;
  }
}

}  // namespace
}  // namespace sluice
