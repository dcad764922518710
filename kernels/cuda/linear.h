// Products with a weight on a GPU, by cuBLASLt. Arguments, shapes and aliasing: kernels/operations.h.
//
// Row-major y[M,N] = x[M,K] . weight[N,K]^T is column-major y' = weight . x', and so on: nothing is transposed in
// memory. What comes beside the product (bias, addend, bias gradient) is done in the product's epilogue, or by a kernel
// from sums in f32: the reference, taken where the library doesn't fuse, or where that was measured to be faster. An
// epilogue takes the bias in the result's type: rounded to bf16, if that is what y is.
//
// A call issues work on the stream and returns the first error. Allocates nothing on the device. Matmul's threads.
#pragma once

#include <optional>

#include "kernels/cuda/matmul.h"
#include "kernels/cuda/packed_linear.h"
#include "kernels/operations.h"

namespace sluice::cuda {

// Of each stream that linear operations are issued on, whatever their shapes: the library's, and one for the sums of
// unfused products, which go in blocks of rows.
int64_t LinearWorkspaceBytes();

cudaError_t PackLinear(cudaStream_t stream, const LinearShape& shape, const TensorView& weight,
                       const TensorView& packed);
cudaError_t LinearForward(Matmul& matmul, cudaStream_t stream, const LinearForwardArgs& args,
                          const Workspace& workspace);
cudaError_t LinearInputGradient(Matmul& matmul, cudaStream_t stream, const LinearInputGradientArgs& args,
                                const Workspace& workspace);
cudaError_t LinearWeightGradient(Matmul& matmul, cudaStream_t stream, const LinearWeightGradientArgs& args,
                                 const Workspace& workspace);

// Chooses the algorithms of these very calls, and whether their epilogues are taken, by measurement; results are lost.
// Waits for the stream. UNIMPLEMENTED: the library has no such epilogue, and there is nothing to choose.
absl::Status MeasureLinear(Matmul& matmul, cudaStream_t stream, const LinearForwardArgs& args,
                           const Workspace& workspace);
absl::Status MeasureLinear(Matmul& matmul, cudaStream_t stream, const LinearInputGradientArgs& args,
                           const Workspace& workspace);
absl::Status MeasureLinear(Matmul& matmul, cudaStream_t stream, const LinearWeightGradientArgs& args,
                           const Workspace& workspace);

// The product of a call that Matmul::SetFused() rules over, if there is one.
std::optional<MatmulShape> EpilogueShape(const LinearForwardArgs& args);
std::optional<MatmulShape> EpilogueShape(const LinearWeightGradientArgs& args);

}  // namespace sluice::cuda
