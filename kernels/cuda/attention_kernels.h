// What the kernels of attention are given and how they are started: attention.cu chooses among them.
#pragma once

#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/workspace.h"
#include "kernels/operations.h"

namespace sluice::cuda {

// Where the parts of a head lie in the tensors of attention, in elements.
struct AttentionLayout {
  int32_t sequence;   // T
  int32_t heads;      // H
  int32_t kv_heads;   // G
  int32_t head_size;  // D

  __host__ __device__ int64_t width() const { return int64_t{heads + 2 * kv_heads} * head_size; }
  __host__ __device__ int64_t y_width() const { return int64_t{heads} * head_size; }
  // Token 0's part of a head; heads are counted through queries, keys and values.
  __host__ __device__ int64_t QkvAt(int64_t row, int part) const {
    return row * sequence * width() + int64_t{part} * head_size;
  }
  __host__ __device__ int64_t YAt(int64_t row, int head) const {
    return row * sequence * y_width() + int64_t{head} * head_size;
  }
  __host__ __device__ int64_t LseAt(int64_t row, int head) const { return (row * heads + head) * sequence; }
  __host__ __device__ int group() const { return heads / kv_heads; }
  __host__ __device__ int KeyPart(int kv_head) const { return heads + kv_head; }
  __host__ __device__ int ValuePart(int kv_head) const { return heads + kv_heads + kv_head; }
};

struct AttentionParams {
  AttentionLayout at;
  DType dtype;
  float scale;
  int32_t rows;
  const void* qkv;
  const int32_t* first_key;  // or none
  void* y;                   // written forward, read backward
  float* lse;                // written forward, read backward
  const void* dy;
  void* dqkv;
  float* statistics;  // what the gradient of the queries leaves for that of the keys
};

// On tensor cores: bf16, head sizes 64 and 128.
cudaError_t LaunchTileForward(cudaStream_t stream, const AttentionParams& params);
cudaError_t LaunchTileQueryGradient(cudaStream_t stream, const AttentionParams& params);
cudaError_t LaunchTileKeyGradient(cudaStream_t stream, const AttentionParams& params);
int64_t TileStatisticsBytes(const AttentionShape& shape);

// On f32 arithmetic: any type, head sizes up to kRowHeadSizeMax.
inline constexpr int kRowHeadSizeMax = 256;
cudaError_t LaunchRowForward(cudaStream_t stream, const AttentionParams& params);
cudaError_t LaunchRowQueryGradient(cudaStream_t stream, const AttentionParams& params);
cudaError_t LaunchRowKeyGradient(cudaStream_t stream, const AttentionParams& params);
int64_t RowStatisticsBytes(const AttentionShape& shape);

// What a kernel reads and writes.
inline int64_t Tokens(const AttentionParams& p) { return int64_t{p.rows} * p.at.sequence; }
inline Region QkvRegion(const AttentionParams& p) { return {p.qkv, Tokens(p) * p.at.width() * SizeOf(p.dtype)}; }
inline Region YRegion(const AttentionParams& p, const void* y) {
  return {y, Tokens(p) * p.at.y_width() * SizeOf(p.dtype)};
}
inline Region LseRegion(const AttentionParams& p) {
  return {p.lse, Tokens(p) * p.at.heads * static_cast<int64_t>(sizeof(float))};
}
inline Region FirstKeyRegion(const AttentionParams& p) {
  return {p.first_key, p.first_key == nullptr ? 0 : Tokens(p) * static_cast<int64_t>(sizeof(int32_t))};
}
// The query heads of each token's gradient, and its key and value heads.
inline Region QueryGradientRegion(const AttentionParams& p) {
  const int64_t element = SizeOf(p.dtype);
  return {p.dqkv, p.at.y_width() * element, Tokens(p), p.at.width() * element};
}
inline Region KeyGradientRegion(const AttentionParams& p) {
  const int64_t element = SizeOf(p.dtype), queries = p.at.y_width() * element, all = p.at.width() * element;
  return {static_cast<const std::byte*>(p.dqkv) + queries, all - queries, Tokens(p), all};
}

}  // namespace sluice::cuda
