// Rotary position embedding (Su et al. 2021, rotate-half layout) in place on a GPU. Arguments: kernels/operations.h.
// A call issues work on the stream and returns; the error is that of the launch. Allocates nothing.
#pragma once

#include "cuda_runtime.h"
#include "kernels/operations.h"

namespace sluice::cuda {

// The angle is taken in double, its sine and cosine in f32, as on the CPU (kernels/cpu/rope.h).
// REQUIRES: D is even and at most 1024.
cudaError_t Rope(cudaStream_t stream, const RopeArgs& args);

// What the kernel is given.
struct RopeParams {
  DType dtype;
  bool aligned;  // qkv allows 16-byte accesses
  Direction direction;
  float theta;
  RopeScaling scaling;
  int head_size;
  int rotated_heads;  // H + G
  int columns;        // of qkv
  int64_t rows;
  void* qkv;
  const int32_t* positions;
};

}  // namespace sluice::cuda
