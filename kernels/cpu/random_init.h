// Normally distributed start values from counters, on the CPU.
// Threads: called by the team's owner; work is cut into fixed blocks. Owns nothing, allocates nothing.
#pragma once

#include "kernels/cpu/team.h"
#include "kernels/operations.h"

namespace sluice::cpu {

// Box-Muller in double, rounded to f32 once, so that another implementation gives the same f32 but for rare ties: of
// the words w0..w3 of RandomWords(key.seed, key.name, key.step, 0, e / 4), elements 0 and 1 are r cos(a), r sin(a) with
// r = sqrt(-2 ln(1 - UnitFloat(w0))), a = 2 pi UnitFloat(w1); elements 2 and 3 come from w2 and w3 likewise.
// REQUIRES: the target is f32.
void InitNormal(Team& team, const InitNormalArgs& args);

}  // namespace sluice::cpu
