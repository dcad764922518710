// The best order of a small problem, proven: dynamic programming over how far each stage has come. Two prefixes with
// the same counts are alike but for times; one whose times are all no earlier than another's is dropped, and so is one
// that can't end before the best order known. What is left when all work is done is best over all orders (search.h
// names the space). The number of prefixes grows exponentially: it is for three ranks and four micro-batches or so.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "scheduler/search/layout.h"

namespace sluice::search {

struct ExactResult {
  bool finished = false;       // false: gave up, nothing is proven
  std::optional<Order> order;  // shorter than `bound_ns`; none: there is no such order
};

// Looks for the shortest order whose objective is below `bound_ns`. Keeps at most `labels` prefixes.
ExactResult SearchExactly(const Layout& layout, int64_t bound_ns, int64_t labels,
                          const std::function<bool()>& out_of_time);

}  // namespace sluice::search
