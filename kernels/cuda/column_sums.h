// Sums over the rows of a matrix, column by column, without atomics: first of each group of kGroupRows rows, then of
// the groups. Both passes add in an order that the shape alone decides.
#pragma once

#include "cuda_runtime.h"
#include "kernels/cuda/workspace.h"
#include "kernels/operations.h"

namespace sluice::cuda {

// dbias[N] (+)= column sums of dy[M, N] (compute). A call issues work on the stream and returns the launch's error.
cudaError_t BiasGradient(cudaStream_t stream, const TensorView& dy, const TensorView& dbias, Accumulate accumulate,
                         const Workspace& workspace);
int64_t BiasGradientWorkspaceBytes(int64_t rows, int64_t columns);

inline constexpr int64_t kGroupRows = 64;
inline int64_t RowGroups(int64_t rows) { return (rows + kGroupRows - 1) / kGroupRows; }

struct BiasPartialsParams {
  DType dtype;
  bool aligned;  // dy allows 16-byte accesses
  int columns;
  int64_t rows;
  const void* dy;
  float* partials;  // [groups of rows, columns]
};

// first[c] (+)= the sum of column c of partials[groups, columns of first and second] over its rows; likewise second.
struct SumPartialsParams {
  Accumulate accumulate;
  int columns;          // of first, and of second if there is one
  int partial_columns;  // of partials: `columns`, or twice that
  int64_t groups;
  const float* partials;
  float* first;
  float* second;  // optional
};
cudaError_t SumPartials(cudaStream_t stream, const SumPartialsParams& params);

}  // namespace sluice::cuda
