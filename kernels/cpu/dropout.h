// Dropout with an optional residual on the CPU, its mask drawn from counters. Arguments and aliasing:
// kernels/operations.h. Threads: called by the team's owner; work is cut into fixed blocks. Owns nothing, allocates
// nothing.
#pragma once

#include "kernels/cpu/team.h"
#include "kernels/operations.h"

namespace sluice::cpu {

// Element e of a sample is kept if UnitFloat(word) >= rate, where word is number e % 4 of
// RandomWords(key.seed, key.name, key.step, sample, e / 4). x * 1/(1-rate) is rounded to f32 before `add` is added.
// REQUIRES: 0 <= rate < 1.
void Dropout(Team& team, const DropoutArgs& args);

}  // namespace sluice::cpu
