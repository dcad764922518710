// Gradient norm, the decision about a step, and AdamW on the CPU. Arguments and shapes: kernels/operations.h.
// Threads: called by the team's owner; work is cut into fixed blocks. Owns nothing, allocates nothing.
#pragma once

#include "kernels/cpu/team.h"
#include "kernels/operations.h"

namespace sluice::cpu {

// A square beyond f32 (an element over 1.8e19) counts as not finite.
void SquaredNorm(Team& team, TensorView gradient, TensorView partials);
// Adds in double, in order. scale = min(1, max_norm / (norm + 1e-6)), as PyTorch's clip_grad_norm_.
void DecideStep(Team& team, TensorView partials, float max_norm, TensorView control);
// A scale below 1 becomes a skip.
void GuessStep(Team& team, TensorView control, TensorView guess);
// Decoupled weight decay (Loshchilov and Hutter, ICLR 2019) in the order of PyTorch's AdamW: the parameter decays first.
// Elementwise: the result of an element doesn't depend on which slice of the tensor the call is given.
void AdamW(Team& team, const AdamWArgs& args);

}  // namespace sluice::cpu
