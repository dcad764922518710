// Softmax cross-entropy over the last axis on the CPU. Arguments, shapes and aliasing: kernels/operations.h.
// Threads: called by the team's owner; work is cut into fixed blocks of rows. Owns nothing, allocates nothing.
#pragma once

#include "kernels/cpu/team.h"
#include "kernels/operations.h"

namespace sluice::cpu {

// `total` is summed in double in the order of the rows and rounded once. lse is written for ignored rows too.
void CrossEntropyForward(Team& team, const CrossEntropyForwardArgs& args);
void CrossEntropyBackward(Team& team, const CrossEntropyBackwardArgs& args);

}  // namespace sluice::cpu
