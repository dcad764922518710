#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/row_group.h"
#include "kernels/operation_check.h"

namespace sluice::cuda {
namespace {

constexpr int64_t kWorkspaceBytesMax = int64_t{4} << 31;  // words of it are counted in 32 bits

bool OnTensorCores(const AttentionShape& shape, DType dtype) {
  return dtype == DType::kBF16 && (shape.head_size == 64 || shape.head_size == 128);
}

// What these kernels demand beside operation_check.h.
void CheckLimits(const AttentionShape& shape) {
  CHECK_LE(shape.head_size, kRowHeadSizeMax);
  CHECK_GT(shape.scale, 0.0f);
}
// The kernels on tensor cores read and write 16 bytes at once.
void CheckAligned(const AttentionShape& shape, DType dtype, std::initializer_list<const void*> addresses) {
  if (OnTensorCores(shape, dtype)) CHECK(Aligned(addresses)) << "tensors of attention begin at multiples of 16 bytes";
}

AttentionParams ParamsOf(const AttentionShape& shape, const TensorView& qkv, const TensorView& first_key) {
  return {
      .at = {.sequence = static_cast<int32_t>(shape.sequence),
             .heads = static_cast<int32_t>(shape.heads),
             .kv_heads = static_cast<int32_t>(shape.kv_heads),
             .head_size = static_cast<int32_t>(shape.head_size)},
      .dtype = qkv.dtype,
      .scale = shape.scale,
      .rows = static_cast<int32_t>(shape.rows),
      .qkv = qkv.data,
      .first_key = first_key.as<int32_t>(),
  };
}

}  // namespace

cudaError_t AttentionForward(cudaStream_t stream, const AttentionForwardArgs& args) {
  const DType dtype = args.qkv.dtype;
  CheckArguments(args);
  CheckLimits(args.shape);
  CheckAligned(args.shape, dtype, {args.qkv.data, args.y.data});
  AttentionParams params = ParamsOf(args.shape, args.qkv, args.first_key);
  params.y = args.y.data;
  params.lse = args.lse.as<float>();
  return (OnTensorCores(args.shape, dtype) ? LaunchTileForward : LaunchRowForward)(stream, params);
}

int64_t AttentionBackwardWorkspaceBytes(const AttentionShape& shape, DType dtype) {
  return OnTensorCores(shape, dtype) ? TileStatisticsBytes(shape) : RowStatisticsBytes(shape);
}

cudaError_t AttentionBackward(cudaStream_t stream, const AttentionBackwardArgs& args, const Workspace& workspace) {
  const DType dtype = args.qkv.dtype;
  CheckArguments(args);
  CheckLimits(args.shape);
  CheckAligned(args.shape, dtype, {args.qkv.data, args.y.data, args.dy.data, args.dqkv.data, workspace.data});
  const int64_t workspace_bytes = AttentionBackwardWorkspaceBytes(args.shape, dtype);
  CHECK_GE(workspace.bytes, workspace_bytes);
  CHECK_LE(workspace_bytes, kWorkspaceBytesMax) << "fewer rows in a micro-batch";
  AttentionParams params = ParamsOf(args.shape, args.qkv, args.first_key);
  params.y = args.y.data;
  params.lse = args.lse.as<float>();
  params.dy = args.dy.data;
  params.dqkv = args.dqkv.data;
  params.statistics = reinterpret_cast<float*>(workspace.data);
  const bool tiles = OnTensorCores(args.shape, dtype);
  const cudaError_t error = (tiles ? LaunchTileQueryGradient : LaunchRowQueryGradient)(stream, params);
  if (error != cudaSuccess) return error;
  return (tiles ? LaunchTileKeyGradient : LaunchRowKeyGradient)(stream, params);
}

}  // namespace sluice::cuda
