// Looking rows up in a table, and the table's gradient, on a GPU. Arguments and shapes: kernels/operations.h.
// A call issues work on the stream and returns; the error is that of the launch. Allocates nothing.
#pragma once

#include "cuda_runtime.h"
#include "kernels/operations.h"

namespace sluice::cuda {

// The row of an index that is in no table becomes NaN.
cudaError_t EmbeddingForward(cudaStream_t stream, const EmbeddingForwardArgs& args);
// Adds in the order of the indices, so the bits are the CPU's. Indices that are in no table are passed over.
cudaError_t EmbeddingGradient(cudaStream_t stream, const EmbeddingGradientArgs& args);

// What the kernels are given. `aligned`: the tensors of rows allow 16-byte accesses.
struct EmbeddingForwardParams {
  DType dtype;
  bool aligned;
  int columns;
  int64_t rows;
  int64_t table_rows;
  int64_t position_rows;
  int64_t first_row;   // of the table
  int64_t vocabulary;  // rows of the table and of its other parts
  const int32_t* tokens;
  const int32_t* positions;
  const float* table;
  const float* position_table;  // optional
  void* y;
};
struct EmbeddingGradientParams {
  DType dtype;
  bool aligned;
  int columns;
  int indices_count;
  int64_t table_rows;
  int64_t first_row;
  const int32_t* indices;
  const void* dy;
  float* dtable;
};

}  // namespace sluice::cuda
