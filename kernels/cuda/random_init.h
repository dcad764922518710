// Normally distributed start values from counters, on a GPU. Arguments: kernels/operations.h.
// A call issues work on the stream and returns; the error is that of the launch. Allocates nothing.
#pragma once

#include "cuda_runtime.h"
#include "kernels/operations.h"

namespace sluice::cuda {

// The values of kernels/cpu/random_init.h, the same bits but for rare ties. Runs once for a tensor: it is simple and
// not fast.
cudaError_t InitNormal(cudaStream_t stream, const InitNormalArgs& args);

// What the kernel is given.
struct InitNormalParams {
  RandomKey key;
  float deviation;
  int64_t elements;
  int64_t columns;  // of a row of the target
  int64_t first;    // the unsplit tensor's element that the target begins with
  int64_t stride;   // between the beginnings of the target's rows in the unsplit tensor
  float* target;
};

}  // namespace sluice::cuda
