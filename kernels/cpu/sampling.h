// Drawing the next token of sequences from their logits (kernels/operations.h). One thread does one sequence.
#pragma once

#include "kernels/cpu/team.h"
#include "kernels/operations.h"

namespace sluice::cpu {

// The random number of a draw is UnitFloat of word 0 of RandomWords(seed, HashName("sample"), 0, sample, position).
void SampleTokens(Team& team, const SampleTokensArgs& args);

}  // namespace sluice::cpu
