// GELU (tanh form) and SwiGLU on the CPU. Arguments, shapes and aliasing: kernels/operations.h.
// Threads: called by the team's owner; work is cut into fixed blocks. Owns nothing, allocates nothing.
#pragma once

#include "kernels/cpu/team.h"
#include "kernels/operations.h"

namespace sluice::cpu {

void GeluForward(Team& team, const GeluForwardArgs& args);
void GeluBackward(Team& team, const GeluBackwardArgs& args);
void SwigluForward(Team& team, const SwigluForwardArgs& args);
void SwigluBackward(Team& team, const SwigluBackwardArgs& args);

}  // namespace sluice::cpu
