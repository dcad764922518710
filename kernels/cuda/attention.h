// Causal self-attention on a GPU, forward and backward. Arguments, shapes and aliasing: kernels/operations.h. A call
// issues work on the stream and returns; the error is that of a launch. Allocates nothing.
//
// FlashAttention-2 (Dao, arXiv:2307.08691): blocks of queries pass over blocks of keys with a running softmax, so
// memory beyond the tensors is linear in T. bf16 heads of size 64 and 128 are computed on tensor cores
// (attention_tile*), all others in f32 (attention_rows.cu): a choice by type and head size alone. The backward pass is
// two kernels, one of which owns blocks of queries and the other blocks of keys; they compute the probabilities twice,
// so that no two blocks add to one gradient and every sum has one order. A row's results don't depend on the other
// rows.
#pragma once

#include "cuda_runtime.h"
#include "kernels/cuda/workspace.h"
#include "kernels/operations.h"

namespace sluice::cuda {

// REQUIRES: head_size <= 256, scale > 0; for bf16 heads of size 64 and 128 tensors that begin at multiples of 16 bytes.
cudaError_t AttentionForward(cudaStream_t stream, const AttentionForwardArgs& args);
// REQUIRES: as AttentionForward; a workspace of AttentionBackwardWorkspaceBytes(), 16-byte aligned.
cudaError_t AttentionBackward(cudaStream_t stream, const AttentionBackwardArgs& args, const Workspace& workspace);
int64_t AttentionBackwardWorkspaceBytes(const AttentionShape& shape, DType dtype);

}  // namespace sluice::cuda
