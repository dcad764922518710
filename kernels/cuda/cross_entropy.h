// Softmax cross-entropy over the last axis on a GPU. Arguments, shapes and aliasing: kernels/operations.h.
// A call issues work on the stream and returns; the error is that of the launch. Allocates nothing.
#pragma once

#include "cuda_runtime.h"
#include "kernels/operations.h"

namespace sluice::cuda {

// A block has a row: it sums the exponentials in one pass and writes the gradient in a second one, backwards, since
// what was read last is still in the cache. `total` is summed in double in the order of the rows and rounded once. A
// target that is not in the vocabulary makes the loss and the gradient NaN.
cudaError_t CrossEntropy(cudaStream_t stream, const CrossEntropyArgs& args);
cudaError_t LogitStatistics(cudaStream_t stream, const LogitStatisticsArgs& args);

// What the kernels are given.
struct CrossEntropyParams {
  DType dtype;           // of dlogits
  bool aligned;          // logits allow 16-byte accesses ...
  bool dlogits_aligned;  // ... and so does dlogits
  int columns;
  int parts;  // of `statistics`
  int64_t rows;
  int64_t first_column;
  int64_t vocabulary;
  float scale;
  const float* logits;
  const float* statistics;  // optional
  const int32_t* targets;
  float* losses;
  void* dlogits;  // optional
};
struct SumLossesParams {
  Accumulate accumulate;
  int64_t rows;
  const float* losses;
  float* total;
};
struct LogitStatisticsParams {
  bool aligned;
  int columns;
  int64_t rows;
  int64_t first_column;
  const float* logits;
  const int32_t* targets;
  float* statistics;
};

}  // namespace sluice::cuda
