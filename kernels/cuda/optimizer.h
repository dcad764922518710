// Gradient norm, the decision about a step, and AdamW on a GPU. Arguments and shapes: kernels/operations.h.
// A call issues work on the stream and returns; the error is that of the launch. Allocates nothing.
#pragma once

#include "cuda_runtime.h"
#include "kernels/adamw.h"
#include "kernels/operations.h"

namespace sluice::cuda {

// A square beyond f32 (an element over 1.8e19) counts as not finite.
cudaError_t SquaredNorm(cudaStream_t stream, const TensorView& gradient, const TensorView& partials);
// Adds in double, in order. scale = min(1, max_norm / (norm + 1e-6)), as PyTorch's clip_grad_norm_.
cudaError_t DecideStep(cudaStream_t stream, const TensorView& partials, float max_norm, const TensorView& control);
// A scale below 1 becomes a skip.
cudaError_t GuessStep(cudaStream_t stream, const TensorView& control, const TensorView& guess);
// Elementwise: the result of an element doesn't depend on which slice of the tensor the call is given.
cudaError_t AdamW(cudaStream_t stream, const AdamWArgs& args);

// What the kernels are given. `aligned`: the flat tensors allow 16-byte accesses.
struct SquaredNormParams {
  bool aligned;
  int64_t elements;
  const float* gradient;
  float* partials;
};
struct DecideStepParams {
  float max_norm;
  int64_t count;
  const float* partials;
  StepControl* control;
};
struct GuessStepParams {
  const StepControl* control;
  StepControl* guess;
};
struct AdamWParams {
  bool aligned;
  AdamWFactors factors;
  int64_t elements;
  const float* gradient;
  const StepControl* control;
  float* parameter;
  float* m;
  float* v;
};

}  // namespace sluice::cuda
