// GELU (tanh form) and SwiGLU on a GPU. Arguments, shapes and aliasing: kernels/operations.h.
// A call issues work on the stream and returns; the error is that of the launch. Allocates nothing.
#pragma once

#include "cuda_runtime.h"
#include "kernels/operations.h"

namespace sluice::cuda {

cudaError_t GeluForward(cudaStream_t stream, const GeluForwardArgs& args);
cudaError_t GeluBackward(cudaStream_t stream, const GeluBackwardArgs& args);
cudaError_t SwigluForward(cudaStream_t stream, const SwigluForwardArgs& args);
cudaError_t SwigluBackward(cudaStream_t stream, const SwigluBackwardArgs& args);

// What the kernels are given. `aligned`: all tensors allow 16-byte accesses.
struct GeluParams {
  DType dtype;
  bool aligned;
  int64_t elements;
  const void* x;
  const void* dy;  // backward
  void* y;         // dx in the backward pass
};
struct SwigluParams {
  DType dtype;
  bool aligned;
  int width;  // F
  int64_t rows;
  const void* gate_up;  // [rows, 2F]
  const void* dy;       // [rows, F], backward
  void* y;              // [rows, F]; dgate_up [rows, 2F] in the backward pass
};

}  // namespace sluice::cuda
