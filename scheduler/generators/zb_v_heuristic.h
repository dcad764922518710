// ZB-V from costs: plays the pipeline as zb_auto does, over two stages per rank placed as a V (the zero-bubble authors'
// published heuristic; Qi et al. 2024 for the V).
#pragma once

#include <cstdint>
#include <vector>

#include "scheduler/generators/common.h"

namespace sluice {

// The schedules that the variants of the rules give under the ranks' caps in bytes. `costs` of the 2p stages.
// REQUIRES: each cap is at least the forward bytes of the rank's two stages.
std::vector<Schedule> ZBVFromCosts(const std::vector<PassCosts>& costs, const std::vector<int64_t>& caps,
                                   int micro_batches);

}  // namespace sluice
