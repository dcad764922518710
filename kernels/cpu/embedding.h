// Looking rows up in a table, and the table's gradient, on the CPU. Arguments and shapes: kernels/operations.h.
// Threads: called by the team's owner; work is cut into fixed blocks. Owns nothing, allocates nothing.
#pragma once

#include "kernels/cpu/team.h"
#include "kernels/operations.h"

namespace sluice::cpu {

// REQUIRES: every index is in its table.
void EmbeddingForward(Team& team, const EmbeddingForwardArgs& args);
// A block of columns belongs to one thread, which goes through the indices in order.
void EmbeddingGradient(Team& team, const EmbeddingGradientArgs& args);

}  // namespace sluice::cpu
