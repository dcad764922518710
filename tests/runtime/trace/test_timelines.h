// Timelines to write and draw: schedules, lowered and simulated.
#pragma once

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "base/check.h"
#include "scheduler/csv.h"
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

// Unit costs in milliseconds: the timelines of the papers' figures.
inline SimulatedRun UnitRun(const std::string& schedule, int ranks, int micro_batches) {
  SimulatedRun run{.schedule = schedule, .ranks = ranks, .micro_batches = micro_batches, .latency_ns = 0};
  run.costs = {.forward_ns = 1'000'000,
               .input_gradient_ns = 1'000'000,
               .weight_gradient_ns = 1'000'000,
               .backward_ns = 2'000'000};
  return run;
}

inline Timeline UnitTimeline(const std::string& schedule, int ranks, int micro_batches) {
  return SimulatedTimeline(UnitRun(schedule, ranks, micro_batches));
}

// The schedule with its transfers as a CSV in which each receive stands right before what needs it: it reads well, and
// deadlocks when sends wait for their receives.
inline std::string LateReceivesCsv(const std::string& schedule, int ranks, int micro_batches) {
  const GeneratorParams params{
      .ranks = ranks, .chunks = ChunksFor(schedule, ranks, micro_batches), .micro_batches = micro_batches};
  Program program = *Lower(*Generate(schedule, params));
  for (std::vector<Action>& list : program.ranks) {
    std::vector<Action> receives, late;
    for (const Action& a : list) {
      if (IsRecv(a.kind)) receives.push_back(a);
    }
    for (const Action& a : list) {
      if (IsRecv(a.kind) || a.kind > ActionKind::kRecvBackward) continue;
      for (const Action& r : receives) {
        const bool forward = r.kind == ActionKind::kRecvForward;
        const bool needed = forward ? a.kind == ActionKind::kForward
                                    : a.kind == ActionKind::kBackward || a.kind == ActionKind::kInputGradient;
        if (needed && r.stage == a.stage && r.micro_batch == a.micro_batch && r.copy == a.copy) late.push_back(r);
      }
      late.push_back(a);
      late.back().flags = kNoFlags;
    }
    list = late;
  }
  return WriteCsv(program.ranks);
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
