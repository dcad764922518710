// LayerNorm and RMSNorm of rows, forward and backward, on a GPU. Arguments, shapes and aliasing: kernels/operations.h.
// A call issues work on the stream and returns; the error is that of the launch. Allocates nothing.
#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/operations.h"

namespace sluice::cuda {

// REQUIRES: columns * size of an element <= 64 KB.
cudaError_t NormForward(cudaStream_t stream, const NormForwardArgs& args);

// What the kernels are given.
struct NormForwardParams {
  DType dtype;
  bool aligned;  // x, y, gamma and beta allow 16-byte accesses
  float epsilon;
  int64_t rows;
  int columns;
  const void* x;
  const float* gamma;
  const float* beta;  // RMSNorm: null, as mean
  void* y;
  float* mean;
  float* rstd;
};

}  // namespace sluice::cuda
