// What the two searches share: stage times by prefix sums, and the judgement of given cuts.
#pragma once

#include <compare>
#include <cstdint>
#include <vector>

#include "stages/partition/partition.h"

namespace sluice::partition {

using Wide = __int128;  // sums of squares of nanoseconds

class StageTimes {
 public:
  explicit StageTimes(const PartitionProblem& problem);
  int64_t operator()(int stage, int begin, int end) const;
  // Without the transfers; it never falls when layers are added.
  int64_t Compute(int stage, int begin, int end) const {
    const std::vector<int64_t>& prefix = prefix_[prefix_.size() == 1 ? 0 : stage];
    return prefix[end] - prefix[begin];
  }

 private:
  const PartitionProblem& problem_;
  std::vector<std::vector<int64_t>> prefix_;
};

// How good cuts are, in order of importance.
struct Score {
  int64_t overflow_bytes = 0;  // summed over ranks
  int64_t load_ns_max = 0;
  Wide load_squares = 0;
  int64_t bytes_max = 0;
  friend auto operator<=>(const Score&, const Score&) = default;
};

// Loads, bytes and Score of valid cuts.
Score Judge(const PartitionProblem& problem, const StageTimes& times, const std::vector<int>& cuts,
            PartitionResult* result);

// Exact, for one stage on each rank. Empty: no cut keeps to the caps.
std::vector<int> ExactCuts(const PartitionProblem& problem, const StageTimes& times);
// Smallest possible largest (bytes - cap) of any rank, for one stage on each rank.
std::vector<int> NearestToCaps(const PartitionProblem& problem);
// For any number of stages on a rank. All cuts are gone through if there are at most `enumerated_max`.
struct SearchResult {
  std::vector<int> cuts;
  bool exact = false;
};
SearchResult SearchCuts(const PartitionProblem& problem, const StageTimes& times, int64_t enumerated_max);

}  // namespace sluice::partition
