// Adding, filling and copying on the CPU. Arguments, shapes and aliasing: kernels/operations.h.
// Threads: called by the team's owner; work is cut into fixed blocks. Owns nothing, allocates nothing.
#pragma once

#include "absl/types/span.h"
#include "kernels/cpu/team.h"
#include "kernels/operations.h"

namespace sluice::cpu {

void Add(Team& team, const AddArgs& args);
// REQUIRES: 1 to 64 parts, of the sum's type and size; only parts[0] may be `sum` itself.
void SumInOrder(Team& team, absl::Span<const TensorView> parts, TensorView sum);
void Fill(Team& team, TensorView target, float value);
void Copy(Team& team, TensorView source, TensorView target);

}  // namespace sluice::cpu
