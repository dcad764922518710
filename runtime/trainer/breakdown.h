// Where the time of a step went, from its measured Timeline, and the costs that a simulation of the same schedule needs.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "scheduler/rank_grid.h"
#include "scheduler/simulate.h"
#include "scheduler/timeline.h"

namespace sluice {

// What each pipeline of a grid did, of a timeline with a row for each world rank: as many timelines with a row for each
// pipeline rank, times as they were.
std::vector<Timeline> PipelinesOf(const Timeline& timeline, const RankGrid& grid);
// The same of several steps: all pipelines of all of them.
std::vector<Timeline> PipelinesOf(absl::Span<const Timeline> timelines, const RankGrid& grid);

// Of one rank; the parts add up to step_ns. All in nanoseconds.
struct RankBreakdown {
  int64_t step_ns = 0;       // from the step's start to the end of the last action on any rank
  int64_t compute_ns = 0;    // F, B, I, W
  int64_t optimizer_ns = 0;  // end of the step: collectives while nothing computes, and the update
  int64_t transfer_ns = 0;   // a message moves to or from the rank and it computes nothing
  int64_t waiting_ns = 0;    // the rest
};

std::vector<RankBreakdown> BreakDown(const Timeline& timeline);

// A rank that is much slower than the others, each beside what was planned for it.
struct Straggler {
  WorldRank rank;
  double times_slower = 1;  // than the median of the others
};
// Ranks at least twice as slow. `measured` by world rank, `planned` by pipeline rank. Shards wait for each other inside
// their compute: of one slow shard all look slow.
std::vector<Straggler> FindStragglers(const std::vector<RankBreakdown>& measured,
                                      const std::vector<RankBreakdown>& planned, const RankGrid& grid);

// Why a rank does nothing while it neither computes nor ends the step. All in nanoseconds.
struct RankIdle {
  int64_t explained_ns = 0;  // what it needed hadn't been made yet, or all others hadn't ended: the schedule's
  int64_t overhead_ns = 0;   // all was there, and it still hadn't begun: executor and transport
};

// Of one pipeline's step that ends with a barrier.
std::vector<RankIdle> ExplainIdle(const Timeline& timeline, const Placement& placement);

// Median time of every kind of action of every stage over the given steps of one pipeline, and of a hand-over between
// ranks (end of the work that made a message to the begin of the work that stood waiting for it); a rank's optimizer
// time is shared equally by its stages. What COLLECTIVEs move in how long gives the rate of collectives. Message and
// slot sizes are those of `sizes`.
Costs MeasuredCosts(absl::Span<const Timeline> steps, const Placement& placement, const Costs& sizes);

}  // namespace sluice
