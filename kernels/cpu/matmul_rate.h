// How fast the library multiplies matrices on this processor: part of the floor that measured steps are held against.
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

// The rate, in FLOPs a second and per thread, that `threads` threads reach at once, each on a product of its own (threads may share a
// core, its clock and the memory), with oneDNN as it is: the whole product in one call, weights in the library's own
// layout; the best of several runs of at least 20 ms. bf16 where the processor has nothing for it is measured as f32,
// which its exact emulation can't beat.
double LibraryRate(World* world, const MatmulShape& shape, int threads);

}  // namespace sluice::cpu
