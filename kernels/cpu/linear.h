// Products with a weight: the CPU's linear operations (kernels/operations.h), over our panels or oneDNN on fixed
// blocks.
//
// bf16: where the library has fast bf16 products they are used; elsewhere the operands, rounded to bf16, are widened
// and multiplied in f32, which is exact, and the result is rounded once. Both sum in f32. Errors: a failure of the
// library or of memory throws.
#pragma once

#include <cstdint>

#include "kernels/cpu/team.h"
#include "kernels/operations.h"

namespace sluice::cpu {

int64_t PackedLinearBytes(const LinearShape& shape);
void PackLinear(Team& team, const LinearShape& shape, TensorView weight, TensorView packed);
void LinearForward(Team& team, const LinearForwardArgs& args);
void LinearInputGradient(Team& team, const LinearInputGradientArgs& args);
void LinearWeightGradient(Team& team, const LinearWeightGradientArgs& args);

}  // namespace sluice::cpu
