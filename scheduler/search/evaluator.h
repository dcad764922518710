// Times an order as SimulateSchedule would, some hundred times faster: a search asks a hundred thousand times.
#pragma once

#include <cstdint>
#include <vector>

#include "scheduler/search/layout.h"

namespace sluice::search {

class Evaluator {
 public:
  // Keeps a reference to `layout`.
  explicit Evaluator(const Layout& layout);

  // False if the order doesn't run to its end: a rank waits for what comes later. REQUIRES: each rank's order is
  // Allowed.
  bool Run(const Order& order);

  // Of the last order that ran to its end.
  Times times() const;
  int64_t objective_ns() const;                                                 // the layout's
  int64_t rank_length_ns(int rank) const;                                       // its end, from its origin
  const std::vector<int64_t>& begins(int rank) const { return begins_[rank]; }  // per step

 private:
  // When the step's input has come, -1: not yet.
  int64_t Ready(Step step, int micro_batch) const;
  void Finish(Step step, int micro_batch, int64_t end);
  void Advance(const Order& order, int rank);

  size_t Cell(int stage, int micro_batch) const { return static_cast<size_t>(stage) * micro_batches_ + micro_batch; }

  const Layout& layout_;
  const size_t micro_batches_;
  const int stages_;
  std::vector<int64_t> forward_end_, gradient_end_;  // by Cell
  std::vector<StageCounts> counts_;                  // per stage
  std::vector<std::vector<int64_t>> begins_;
  std::vector<size_t> next_;  // per rank
  std::vector<int64_t> free_ns_;
  std::vector<char> waiting_;  // is in work_
  std::vector<int> work_;
};

}  // namespace sluice::search
