// Finds the best order of work for given costs, number of micro-batches and memory: over all generators, and beyond
// them.
//
// Times are those of SimulateSchedule (compute and transfer times, no queues), and one of two objectives is optimised:
// the makespan, or the span (timeline.h has both). The search only reads its arguments: it has no clock, and a caller
// who counts seconds hands in a function. The same arguments give the same result as long as that function doesn't end
// the search.
//
// Method (search/, one file each):
//   1. Every generator that fits the numbers and the cap is timed. The result is never worse than the best of them.
//   2. A list scheduler plays each placement with many rules: how far ranks run ahead, what goes first, how long to
//   wait.
//   3. The best orders of both are improved by local search (simulated annealing with restarts, each move one action of
//      one rank to another place of its list). It ends when it meets the lower bound.
//   4. A problem small enough is solved exactly instead, by dynamic programming over how far each stage has come, with
//      dominated prefixes dropped. SearchResult::optimal says when the result is proven best, in that way or because it
//      meets the lower bound.
// The space searched by 2 to 4: all orders in which each stage takes its micro-batches in ascending order, for F, for
// I and B, and for W. As all micro-batches cost the same, giving the k-th of a stage's forwards micro-batch k (and so
// for I) turns any other order into one of these with the same times and memory; ascending weight gradients are a
// promise of this project (and bind where a fused B is cheaper than I and W).
//
// The lower bound and its proof: search/lower_bound.h. It holds for every order of the placements considered, whatever
// the method found.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/cost_profile.h"
#include "scheduler/schedule.h"
#include "scheduler/simulate.h"

namespace sluice {

// What a stage keeps of one micro-batch.
struct MicroBatchMemory {
  int64_t forward_bytes = 1;  // from the start of F on
  int64_t weight_bytes = 1;   // from the end of I to the end of W; more than forward_bytes if gradients weigh more
  friend bool operator==(const MicroBatchMemory&, const MicroBatchMemory&) = default;
};

// One way to cut the model: `chunks` stages for every rank.
struct ModelCut {
  int chunks = 1;
  Costs costs;                           // of ranks x chunks stages
  std::vector<MicroBatchMemory> memory;  // per stage; empty: all as MicroBatchMemory{}
};

// The profile's model in ranks x chunks stages, re-divided if it is cut otherwise. Memory is that of our slots if the
// profile has any: the stash stays whole until W, and I adds the gradient's stash. If it has none, all stages keep the
// same, and I leaves `weight_share` of it for W.
ModelCut CutModel(const CostProfile& profile, int ranks, int chunks, double weight_share = 1);

enum class Objective : uint8_t { kMakespan, kSpan };
const char* ObjectiveName(Objective objective);

struct SearchProblem {
  int ranks = 1;
  int micro_batches = 1;
  std::vector<ModelCut> cuts;  // the result takes one of them
  // Most memory of each rank; 0: no such cap; both hold if both are given. In forward passes of one micro-batch through
  // all of the rank's stages (cap x the sum of their forward_bytes), or in bytes.
  double in_flight_cap = 0;
  int64_t rank_bytes_cap = 0;
  Objective objective = Objective::kSpan;
};

enum class ModelCopies : uint8_t {
  kOne,
  kAlsoTwo,  // generators with two copies of the model take part; the cap does not count the second copy's parameters
};

struct SearchOptions {
  uint64_t seed = 1;
  int64_t evaluations = 300'000;   // orders timed by list scheduling and local search
  int64_t exact_labels = 400'000;  // prefixes that the exact method may keep before it gives up; 0: it is not tried
  ModelCopies copies = ModelCopies::kOne;
  std::function<bool()> out_of_time;  // asked now and then; true ends the search with the best so far
};

// Both ways to time an order, in nanoseconds.
struct Times {
  int64_t makespan_ns = 0;
  int64_t span_ns = 0;
  int64_t Of(Objective objective) const { return objective == Objective::kSpan ? span_ns : makespan_ns; }
  friend bool operator==(const Times&, const Times&) = default;
};

// A generator, or the search itself, at these costs.
struct Candidate {
  std::string name;  // the generator's; "found"
  int chunks = 1;
  Times times;
  double memory_share_max = 0;  // most memory of a rank, in forward passes of a micro-batch through all of its stages
  std::string refusal;          // not empty: it does not fit, and why; the numbers above are then those that are known
  friend bool operator==(const Candidate&, const Candidate&) = default;
};

struct SearchResult {
  Schedule schedule;
  ModelCut cut;  // that the schedule belongs to
  Candidate found;
  std::vector<Candidate> generators;  // the fitting ones first, best objective first
  Times lower_bound;                  // no order of any placement considered is shorter
  bool optimal = false;               // proven: nothing in the space is shorter by the objective
  std::string method;                 // what gave the result: "generator zb_v", "local search", "exact", ...
  int64_t evaluations = 0;
};

// Errors: INVALID_ARGUMENT for numbers that can't be; RESOURCE_EXHAUSTED if no order was found under the cap.
absl::StatusOr<SearchResult> Search(const SearchProblem& problem, const SearchOptions& options = {});

}  // namespace sluice
