// Attention in bf16 on matrix registers (tile_product.h); attention.h chooses. Probabilities and the gradients of
// scores are rounded to bf16 before they are multiplied, as in FlashAttention (Dao, 2023); sums are f32.
#pragma once

#include "kernels/cpu/team.h"
#include "kernels/operations.h"

namespace sluice::cpu::tiles {

// REQUIRES: checked arguments in bf16, Available().
void AttentionForward(Team& team, const AttentionForwardArgs& args);
void AttentionBackward(Team& team, const AttentionBackwardArgs& args);

}  // namespace sluice::cpu::tiles
