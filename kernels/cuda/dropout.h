// Dropout with an optional residual on a GPU, its mask drawn from the same counters as on the CPU. Arguments and
// aliasing: kernels/operations.h. A call issues work on the stream and returns; the error is that of the launch.
// Allocates nothing.
#pragma once

#include "cuda_runtime.h"
#include "kernels/operations.h"

namespace sluice::cuda {

// Which elements are kept, and the rounding: kernels/cpu/dropout.h; the same bits.
// REQUIRES: 0 <= rate < 1.
cudaError_t Dropout(cudaStream_t stream, const DropoutArgs& args);

// What the kernel is given. `aligned`: x, add and y allow 16-byte accesses.
struct DropoutParams {
  DType dtype;
  bool aligned;
  RandomKey key;
  float rate;
  int columns;
  int64_t rows;
  int64_t sequence;
  int64_t first_token;
  int samples_count;
  const int32_t* samples;
  const void* x;
  const void* add;  // optional
  void* y;
};

}  // namespace sluice::cuda
