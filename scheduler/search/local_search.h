// Improves one order by simulated annealing: a move takes one action of one rank to another place of its list (or joins
// an I and its W to a B, or parts them), is timed exactly, and is kept if the order got better, or by chance while the
// temperature is high. Half of the moves aim at the idle gaps of the ranks that end last.
#pragma once

#include <cstdint>
#include <functional>

#include "scheduler/search/evaluator.h"
#include "scheduler/search/layout.h"

namespace sluice::search {

struct LocalSearchBudget {
  int64_t evaluations = 20'000;
  int64_t target_ns = 0;              // ends when the objective is as short as this
  double heat = 0.5;                  // temperature at the beginning, in mean action times
  std::function<bool()> out_of_time;  // may be empty
};

struct LocalSearchResult {
  Order order;
  int64_t objective_ns = 0;
  int64_t evaluations = 0;
};

// REQUIRES: `start` runs to its end and fits the caps. The result is never worse.
LocalSearchResult Improve(const Layout& layout, const Order& start, uint64_t seed, const LocalSearchBudget& budget);

}  // namespace sluice::search
