// How operations cut their work: into blocks whose size depends on the shape only, so that results don't depend on the
// number of threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/team.h"

namespace sluice::cpu {

// Elements of one block: 64 KB of f32, some microseconds of work. A multiple of 4, so that the quads of counter-based
// random numbers lie within one block.
inline constexpr int64_t kBlockElements = 16384;

// Calls body(begin, end) for consecutive ranges of at most `block` of the `count` items.
template <class Body>
void ForEachBlock(Team& team, int64_t count, int64_t block, Body body) {
  const int64_t blocks = (count + block - 1) / block;
  team.ParallelFor(blocks, [&](int64_t b) { body(b * block, std::min(count, (b + 1) * block)); });
}

// Rows of a matrix, as many in a block as make about kBlockElements.
template <class Body>
void ForEachRowBlock(Team& team, int64_t rows, int64_t columns, Body body) {
  ForEachBlock(team, rows, std::max<int64_t>(1, kBlockElements / std::max<int64_t>(1, columns)), body);
}

}  // namespace sluice::cpu
