// How large a weight is as the GPU's products take it: one copy of it in the type of the compute tensors, for forward
// and input gradient alike. For those who plan memory, also where no GPU code is built.
#pragma once

#include <cstdint>

#include "kernels/operations.h"

namespace sluice::cuda {

inline int64_t PackedLinearBytes(const LinearShape& shape) {
  constexpr int64_t kAlignment = 256;  // of what is allocated on its own; cuBLASLt wants 16
  return (shape.n * shape.k * SizeOf(shape.compute) + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace sluice::cuda
