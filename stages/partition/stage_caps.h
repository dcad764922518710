// Which stages keep to their cap of memory, from as few exact numbers as possible: what one answer says about wider and
// narrower stages is kept (PartitionProblem::bytes_dip).
#pragma once

#include <cstdint>
#include <limits>
#include <unordered_map>
#include <vector>

#include "stages/partition/partition.h"

namespace sluice::partition {

// PartitionProblem::bytes, each asked for once.
class AskedBytes {
 public:
  explicit AskedBytes(const PartitionProblem& problem) : problem_(problem) {}
  int64_t operator()(int stage, int begin, int end);

 private:
  const PartitionProblem& problem_;
  std::unordered_map<uint64_t, int64_t> known_;
};

// REQUIRES: one stage on each rank.
class StageCaps {
 public:
  // Each cap is `extra` higher than the problem's.
  StageCaps(const PartitionProblem& problem, AskedBytes& bytes, int64_t extra);

  bool Fits(int stage, int begin, int end);
  // No stage from `begin` on that ends after this fits, as far as is known by now.
  int LastEnd(int stage, int begin) const { return limited_ ? breaks_from_[stage][begin] - 1 : layers_; }

 private:
  // Keeps what the bytes of one range say about others. True: all that contain it break the cap.
  bool Learn(int stage, int begin, int end, int64_t bytes);
  // Narrows down where ranges from `begin` on begin to break the cap; the one that ends at `end` does.
  void Tighten(int stage, int begin, int end);

  const bool limited_;
  const int layers_;
  const int64_t dip_;  // negative: unknown
  AskedBytes& bytes_;
  std::vector<int64_t> cap_;                   // per stage
  std::vector<std::vector<int>> breaks_from_;  // [stage][begin]: from this end on
  std::vector<std::vector<int>> fits_until_;   // [stage][begin]: up to this end
};

}  // namespace sluice::partition
