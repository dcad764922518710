// Softmax cross-entropy over the last axis on the CPU. Arguments, shapes and aliasing: kernels/operations.h.
// Threads: called by the team's owner; work is cut into fixed blocks of rows. Owns nothing, allocates nothing.
#pragma once

#include "kernels/cpu/team.h"
#include "kernels/operations.h"

namespace sluice::cpu {

// Memory sees a row once: its second pass is over what the first has brought into the cache. `total` is summed in
// double in the order of the rows and rounded once.
void CrossEntropy(Team& team, const CrossEntropyArgs& args);
void LogitStatistics(Team& team, const LogitStatisticsArgs& args);

}  // namespace sluice::cpu
