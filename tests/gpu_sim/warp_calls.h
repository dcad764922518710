// What the lanes of a warp do together: shuffles, votes, matrices. Pure: from the arguments of all lanes to their
// results, as the PTX manual has it. Threads: any.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "tests/gpu_sim/include/cuda_runtime.h"

namespace gpu_sim {

inline constexpr int kLanes = 32;

// One lane's call, and after it, its result.
struct WarpCall {
  enum class Kind : uint8_t { kSync, kShuffle, kBallot, kMatch, kLoadMatrix, kMma } kind = Kind::kSync;
  unsigned mask = ~0u;
  const void* pc = nullptr;

  uint64_t bits = 0;  // the value; the predicate of a vote; afterwards the result
  ShuffleKind shuffle = ShuffleKind::kIndex;
  int operand = 0;  // the shuffle's lane, distance or mask
  int width = kLanes;

  int matrices = 0;  // LoadMatrix
  bool transposed = false;
  const void* row = nullptr;
  uint32_t* fragment = nullptr;

  float* d = nullptr;  // Mma
  const uint32_t* a = nullptr;
  const uint32_t* b = nullptr;
};

// By lane; null: not among them.
using WarpCalls = std::array<WarpCall*, kLanes>;

// The lane that this lane's value comes from; its own where the manual says so.
int ShuffleSource(int lane, ShuffleKind kind, int operand, int width);

// Does what all lanes of the calls' mask came for. Returns a lane of the mask that wants the value of one outside of
// it, if there is one: its result isn't defined.
std::optional<int> RunTogether(const WarpCalls& calls);

}  // namespace gpu_sim
