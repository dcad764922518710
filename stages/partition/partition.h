// Cuts a chain of layers into stages so that the busiest rank has as little to do as possible and no rank needs more
// memory than it has. Pure: numbers in, cuts out, the same for the same numbers.
//
// With one stage on each rank the cuts are exact (PipeDream's problem, Harlap et al. 2018, without replication, with a
// memory cap for each position as 1F1B needs it). With several stages on a rank loads couple over the laps and it is no
// longer a chain: exact by going through the cuts where there are few, else a local search, whose distance from a lower
// bound the result states.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace sluice {

struct PartitionProblem {
  // Compute of one micro-batch per layer, all its passes: [1][L], or [stages][L] where stages differ (recomputation).
  std::vector<std::vector<int64_t>> layer_ns;
  // Time to move the tensors over the cut after layer l, [L-1]; both sides pay it. Empty: free.
  std::vector<int64_t> cut_ns;
  // The stages that each rank holds. Every stage 0 ... S-1 is on at least one rank.
  std::vector<std::vector<int>> stages_of_rank;
  // Bytes of stage `stage` made of layers [begin, end), in-flight counts included; null: memory doesn't matter.
  std::function<int64_t(int stage, int begin, int end)> bytes;
  // More layers never need less than those among them did, but for this many bytes: so that few ranges have to be asked
  // about. Negative: nothing is known.
  int64_t bytes_dip = -1;
  // Per rank; empty: no limit.
  std::vector<int64_t> caps;
  // With several stages on a rank: up to so many ways to cut, all are gone through.
  int64_t enumerated_max = 100'000;

  int layers() const { return layer_ns.empty() ? 0 : static_cast<int>(layer_ns[0].size()); }
  int ranks() const { return static_cast<int>(stages_of_rank.size()); }
  int stages() const;
  int64_t StageTime(int stage, int begin, int end) const;  // O(end - begin)
};

struct PartitionResult {
  std::vector<int> cuts;         // S + 1 ascending: stage s is layers [cuts[s], cuts[s + 1])
  int64_t load_ns_max = 0;       // of the busiest rank, with the time of its cuts
  std::vector<int64_t> load_ns;  // per rank
  std::vector<int64_t> bytes;    // per rank; 0 without `bytes`
  int64_t load_bound_ns = 0;     // no cuts can be below: the mean load with the cheapest transfers, the longest layer
  bool exact = false;            // there are no better cuts, in none of the criteria
};

// Among the cuts that keep to the caps: least busiest rank, then least sum of squared loads, then least peak of bytes
// over the ranks, then the lexicographically first. No stage is empty. Errors: INVALID_ARGUMENT when there are more
// stages than layers; RESOURCE_EXHAUSTED with the bytes of each rank in the cut that comes nearest, when none keeps to
// the caps (with several stages on a rank: none was found).
absl::StatusOr<PartitionResult> Partition(const PartitionProblem& problem);

// Fills in loads and bytes of given cuts. Errors: INVALID_ARGUMENT if a stage is empty or a layer is left out;
// RESOURCE_EXHAUSTED with the bytes of each rank.
absl::StatusOr<PartitionResult> Evaluate(const PartitionProblem& problem, const std::vector<int>& cuts);

// PartitionProblem::bytes from plain per-layer numbers.
struct LayerBytes {
  std::vector<int64_t> fixed;      // [L] parameters, gradients, optimizer
  std::vector<int64_t> stash;      // [L] of one micro-batch
  std::vector<int64_t> working;    // [L] of one layer's passes: a stage needs the largest; empty: 0
  std::vector<int64_t> in_flight;  // [S] micro-batches whose stash a stage holds
  std::vector<int64_t> overhead;   // [S] whatever its layers; empty: 0
};
std::function<int64_t(int, int, int)> BytesOf(LayerBytes layers);

}  // namespace sluice
