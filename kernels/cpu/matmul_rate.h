// How fast the library multiplies matrices and how fast memory is on this processor: what the floor of a step is made
// of (tools/measure/floor.h).
#pragma once

#include <cstdint>

#include "base/world.h"
#include "kernels/dtype.h"

namespace sluice::cpu {

enum class MatmulKind : uint8_t {
  kForward,         // y[M,N] = x[M,K] . weight[N,K]^T
  kInputGradient,   // dx[M,K] = dy[M,N] . weight
  kWeightGradient,  // dweight[N,K] += dy^T . x
};

struct MatmulShape {
  MatmulKind kind = MatmulKind::kForward;
  int64_t m = 0, n = 0, k = 0;
  DType type = DType::kF32;
};

// How the library is given its right-hand operand.
enum class LibraryLayout : uint8_t {
  kPacked,  // in its own layout; packing counts where the operand is an activation (weight gradient), not for weights
  kPlain,   // row-major, as it is elsewhere: weight[N,K], x[M,K]
};

// The rate, in FLOPs a second and per thread, that `threads` threads reach at once, each on a product of its own
// (threads may share a core, its clock and the memory), with operands that stay in cache as far as they fit: the whole
// product in one call of oneDNN; the best of at least three calls in 100 ms. 0 where oneDNN would run its reference
// loops. bf16 where the processor has nothing for it is measured as f32, which its exact emulation can't beat.
double LibraryRate(World* world, const MatmulShape& shape, LibraryLayout layout, int threads);

// Bytes a second and per thread, that `threads` threads move at once, each streaming over a buffer of its own; the
// median of pieces of 4 MiB. The buffers together are as large as `working_set_bytes`, so that the rate is that of the
// cache or memory that holds it, but no larger than what no cache holds.
struct MemoryRate {
  double read = 0;
  double write = 0;   // without reading before
  double update = 0;  // reading and writing the same bytes, counted once
};
MemoryRate MeasureMemoryRate(World* world, int64_t working_set_bytes, int threads);

}  // namespace sluice::cpu
