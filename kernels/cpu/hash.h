// A hash of a tensor's bits on the CPU: kernels/operations.h.
// Threads: called by the team's owner; work is cut into fixed blocks. Owns nothing, allocates nothing.
#pragma once

#include "kernels/cpu/team.h"
#include "kernels/operations.h"

namespace sluice::cpu {

// Of one block (kernels/hash_chains.h), which knows its place.
uint64_t HashBlock(const std::byte* data, int64_t bytes, uint64_t block);
void Hash(Team& team, TensorView source, TensorView hash);

}  // namespace sluice::cpu
