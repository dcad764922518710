// What comes beside a product whose sums are f32 in a scratch buffer: y = sums (+ bias) (+ add), rounded once.
#pragma once

#include "cuda_runtime.h"
#include "kernels/tensor.h"

namespace sluice::cuda {

struct FinishLinearArgs {
  TensorView sums;  // [rows, N] f32
  TensorView bias;  // [N] f32, optional
  TensorView add;   // [rows, N] f32 or bf16, optional; may be y
  TensorView y;     // [rows, N] f32 or bf16
};
cudaError_t FinishLinear(cudaStream_t stream, const FinishLinearArgs& args);

struct FinishLinearParams {
  DType add_type, y_type;
  bool aligned;
  int64_t rows;
  int columns;
  const float* sums;
  const float* bias;
  const void* add;
  void* y;
};

}  // namespace sluice::cuda
