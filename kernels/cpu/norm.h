// LayerNorm and RMSNorm of rows, forward and backward, on the CPU. Arguments, shapes and aliasing: kernels/operations.h.
// Threads: called by the team's owner; work is cut into fixed blocks of rows or columns. Owns nothing, allocates nothing.
#pragma once

#include "kernels/cpu/team.h"
#include "kernels/operations.h"

namespace sluice::cpu {

// Two passes over a row: mean, then the mean of the squared distances from it.
void NormForward(Team& team, const NormForwardArgs& args);
void NormInputGradient(Team& team, const NormInputGradientArgs& args);
// Each column is summed by one thread: groups of 64 rows, then the groups, both ascending.
void NormWeightGradient(Team& team, const NormWeightGradientArgs& args);

}  // namespace sluice::cpu
