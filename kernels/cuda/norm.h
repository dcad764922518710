// LayerNorm and RMSNorm of rows, forward and backward, on a GPU. Arguments, shapes and aliasing: kernels/operations.h.
// A call issues work on the stream and returns; the error is that of the launch. Allocates nothing.
#pragma once

#include "cuda_runtime.h"
#include "kernels/cuda/workspace.h"
#include "kernels/operations.h"

namespace sluice::cuda {

// A row stays in shared memory between its mean, the mean of the squared distances from it, and its result.
// REQUIRES: a row is of 80 KB at most.
cudaError_t NormForward(cudaStream_t stream, const NormForwardArgs& args);
// REQUIRES: a row is of 80 KB at most.
cudaError_t NormInputGradient(cudaStream_t stream, const NormInputGradientArgs& args);
// Sums over the rows: kernels/cuda/column_sums.h.
cudaError_t NormWeightGradient(cudaStream_t stream, const NormWeightGradientArgs& args, const Workspace& workspace);
int64_t NormWeightGradientWorkspaceBytes(int64_t rows, int64_t columns);

// What the kernels are given. `aligned`: the tensors of rows, and gamma and beta, allow 16-byte accesses. RMSNorm has
// neither mean nor beta.
struct NormForwardParams {
  DType dtype;
  bool aligned;
  float epsilon;
  int columns;
  int64_t rows;
  const void* x;
  const float* gamma;
  const float* beta;
  void* y;
  float* mean;
  float* rstd;
};
struct NormInputGradientParams {
  DType dtype;
  bool aligned;
  int columns;
  int64_t rows;
  const void* dy;
  const void* x;
  const float* gamma;
  const float* mean;
  const float* rstd;
  const void* add;  // optional
  void* dx;
};
struct NormWeightPartialsParams {
  DType dtype;
  bool aligned;
  int columns;
  int64_t rows;
  const void* dy;
  const void* x;
  const float* mean;
  const float* rstd;
  float* partials;  // [groups of rows, 2, columns]: dgamma, dbeta; without dbeta in RMSNorm
};

}  // namespace sluice::cuda
