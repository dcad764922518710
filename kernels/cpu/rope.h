// Rotary position embedding (Su et al. 2021, rotate-half layout) in place on the CPU. Arguments: kernels/operations.h.
// Threads: called by the team's owner; work is cut into fixed blocks of tokens. Owns nothing, allocates nothing.
#pragma once

#include "kernels/cpu/team.h"
#include "kernels/operations.h"

namespace sluice::cpu {

inline constexpr int64_t kMaxRopeHeadSize = 1024;

// Pair (i, i + D/2) of a head turns by position * theta^(-2i/D), that frequency scaled. The angle is taken in double, its sine and cosine in f32.
// REQUIRES: D is even and at most kMaxRopeHeadSize.
void Rope(Team& team, const RopeArgs& args);

}  // namespace sluice::cpu
