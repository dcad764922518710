// Timelines to write and draw: schedules, lowered and simulated.
#pragma once

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "base/check.h"
#include "scheduler/generators.h"
#include "scheduler/lowering.h"
#include "scheduler/simulate.h"

namespace sluice {

struct SimulatedRun {
  std::string schedule = "1f1b";
  int ranks = 4;
  int chunks = 1;
  int micro_batches = 8;
  QueuePolicy queues = QueuePolicy::kOnePerDirection;
  StageCosts costs = {.forward_ns = 1'000'001,
                      .input_gradient_ns = 1'000'003,
                      .weight_gradient_ns = 999'999,
                      .backward_ns = 2'000'002,
                      .optimizer_ns = 500'000,
                      .activation_bytes = 1 << 20,
                      .gradient_bytes = 1 << 19};
  int64_t latency_ns = 20'011;
};

// Chunks per rank with which a generator makes a schedule of that size: as few as it takes.
inline int ChunksFor(const std::string& schedule, int ranks, int micro_batches) {
  const GeneratorParams params{.ranks = ranks, .chunks = 1, .micro_batches = micro_batches};
  return Generate(schedule, params).ok() ? 1 : 2;
}

inline Timeline SimulatedTimeline(const SimulatedRun& run) {
  const auto schedule =
      Generate(run.schedule, {.ranks = run.ranks, .chunks = run.chunks, .micro_batches = run.micro_batches});
  CHECK(schedule.ok()) << schedule.status();
  const auto program = Lower(*schedule, {.queues = run.queues});
  CHECK(program.ok()) << program.status();
  Costs costs = UniformCosts(schedule->placement.stages(), run.costs);
  costs.transfer_latency_ns = run.latency_ns;
  costs.transfer_bytes_per_second = 1e10;
  costs.collective_ns = 100'000;
  costs.stage_bytes.assign(schedule->placement.stages(),
                           StageBytes{.slot = {1 << 20, 1 << 20, 1 << 19, 1 << 19, 1 << 22, 0}, .fixed = 1 << 24});
  auto timeline = Simulate(*program, costs);
  CHECK(timeline.ok()) << timeline.status();
  return *std::move(timeline);
}

// Spans have no order of their own.
inline std::vector<Span> Sorted(std::vector<Span> spans) {
  const auto key = [](const Span& s) {
    return std::tuple(s.rank, s.begin_ns, s.end_ns, s.action.kind, s.action.stage, s.action.micro_batch,
                      s.action.collective, s.action.peer);
  };
  std::sort(spans.begin(), spans.end(), [&](const Span& a, const Span& b) { return key(a) < key(b); });
  return spans;
}

}  // namespace sluice
