// Causal self-attention of the CPU (kernels/operations.h), in blocks of queries: memory beyond the tensors is linear in
// T.
//
// One thread does all queries of one (row, key head), so dk and dv have one owner and one order of sums. Scores,
// probabilities and sums are f32 for bf16 tensors too; the backward pass computes the probabilities again, from lse.
// Errors: a failure of memory throws.
#pragma once

#include "kernels/cpu/team.h"
#include "kernels/operations.h"

namespace sluice::cpu {

void AttentionForward(Team& team, const AttentionForwardArgs& args);
void AttentionBackward(Team& team, const AttentionBackwardArgs& args);

}  // namespace sluice::cpu
