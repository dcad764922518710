// Adding, filling, copying and casting on a GPU. Arguments, shapes and aliasing: kernels/operations.h.
// A call issues work on the stream and returns; the error is that of the launch. Allocates nothing.
#pragma once

#include "absl/types/span.h"
#include "cuda_runtime.h"
#include "kernels/operations.h"

namespace sluice::cuda {

inline constexpr int kPartsMax = 64;

cudaError_t Add(cudaStream_t stream, const AddArgs& args);
// REQUIRES: 1 to kPartsMax parts, of the sum's type and size; only parts[0] may be `sum` itself.
cudaError_t SumInOrder(cudaStream_t stream, absl::Span<const TensorView> parts, const TensorView& sum);
cudaError_t Fill(cudaStream_t stream, const TensorView& target, float value);
cudaError_t Copy(cudaStream_t stream, const TensorView& source, const TensorView& target);
// f32 -> bf16, rounded to nearest even.
cudaError_t CastToBFloat16(cudaStream_t stream, const TensorView& source, const TensorView& target);

// What the kernels are given. `aligned`: all tensors allow 16-byte accesses.
struct AddParams {
  DType dtype;
  bool aligned;
  int64_t elements;
  const void* a;
  const void* b;
  void* y;
};
struct SumInOrderParams {
  DType dtype;
  bool aligned;
  int count;
  int64_t elements;
  const void* parts[kPartsMax];
  void* sum;
};
struct FillParams {
  DType dtype;  // i32: as f32, the value's bits are those of an integer
  bool aligned;
  float value;
  int64_t elements;
  void* target;
};
struct CastParams {
  bool aligned;
  int64_t elements;
  const float* source;
  BFloat16* target;
};

}  // namespace sluice::cuda
