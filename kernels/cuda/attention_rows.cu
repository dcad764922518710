// Attention in f32 arithmetic, for f32 tensors and head sizes without a kernel on tensor cores. A warp owns one query
// (or one key), and passes over tiles of keys (queries) in shared memory: first each lane takes one of them for the dot
// products, then some of the head's elements for the weighted sums.
#include <algorithm>
#include <cstdint>

#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/attention_queries.h"
#include "kernels/cuda/pack.h"
#include "kernels/cuda/row_group.h"
#include "kernels/cuda/simt.h"

namespace sluice::cuda {
namespace {

constexpr int kWarps = 8;  // a block's own rows
constexpr int kThreads = kWarps * kWarp;
constexpr int kSums = kRowHeadSizeMax / kWarp;  // of a lane: elements lane, lane + 32, ...

// Between rows of a tile: odd, so that lanes that read a column fall on different banks.
__host__ __device__ constexpr int TileStride(int size) { return size | 1; }
// Two tiles, two rows of each warp, and two weights of each lane.
int SharedBytes(int size) {
  return (2 * kWarp * TileStride(size) + 2 * kWarps * (size + kWarp)) * static_cast<int>(sizeof(float));
}

struct Rows {
  int64_t at;  // elements before row 0
  int64_t stride;
};

// The memory of a block, and how it is filled from a tensor of T.
template <class T>
struct RowMemory {
  int size;

  __device__ float* Tile(int i) const { return SharedMemory<float>() + i * kWarp * TileStride(size); }
  __device__ float* Own(int i) const { return Tile(2) + (Warp() * 2 + i) * size; }
  __device__ float* Weights(int i) const { return Tile(2) + 2 * kWarps * size + (Warp() * 2 + i) * kWarp; }
  // By all threads: rows [first, first + 32), those from `end` on as zeros.
  __device__ void FillTile(int i, const void* tensor, Rows rows, int first, int end) const {
    const T* from = static_cast<const T*>(tensor) + rows.at;
    for (int e = threadIdx.x; e < kWarp * size; e += kThreads) {
      const int row = e / size, d = e % size;
      Tile(i)[row * TileStride(size) + d] =
          first + row < end ? LoadElement(from + (first + row) * rows.stride + d) : 0.0f;
    }
  }
  // By the warp.
  __device__ void FillOwn(int i, const void* tensor, Rows rows, int row, int end) const {
    const T* from = static_cast<const T*>(tensor) + rows.at + row * rows.stride;
    for (int d = Lane(); d < size; d += kWarp) Own(i)[d] = row < end ? LoadElement(from + d) : 0.0f;
  }
  // The warp's row . this lane's row of a tile.
  __device__ float Dot(int own, int tile) const {
    const float *a = Own(own), *b = Tile(tile) + Lane() * TileStride(size);
    float sum = 0.0f;
    for (int d = 0; d < size; ++d) sum += a[d] * b[d];
    return sum;
  }
  // sums += the sum of the tile's rows, each times the weight that its lane has. Once for each tile that is filled in.
  __device__ void AddWeighted(float weight, int tile, float (&sums)[kSums]) const {
    float* const weights = Weights(tile);
    weights[Lane()] = weight;
    __syncwarp();
    for (int j = 0; j < kWarp; ++j) {
      const float* row = Tile(tile) + j * TileStride(size);
#pragma unroll
      for (int i = 0; i < kSums; ++i) {
        if (i * kWarp + Lane() < size) sums[i] += weights[j] * row[i * kWarp + Lane()];
      }
    }
  }
  __device__ void Store(const float (&sums)[kSums], float factor, void* tensor, Rows rows, int row) const {
    T* to = static_cast<T*>(tensor) + rows.at + row * rows.stride;
#pragma unroll
    for (int i = 0; i < kSums; ++i) {
      if (i * kWarp + Lane() < size) StoreElement(sums[i] * factor, to + i * kWarp + Lane());
    }
  }
};

__device__ float WarpMaximum(float x) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, distance));
  return x;
}
__device__ float WarpSum(float x) { return SumOverWarp(Pack<1>{{x}})[0]; }

__device__ Rows QkvRows(const AttentionParams& p, int64_t row, int part) {
  return {p.at.QkvAt(row, part), p.at.width()};
}
__device__ Rows YRows(const AttentionParams& p, int64_t row, int head) { return {p.at.YAt(row, head), p.at.y_width()}; }

// Block (row and head, group of queries): a query of each warp.
struct QueryBlock {
  int64_t row;
  int head, kv_head;
  int begin, end;  // of the block's queries
  int query;       // of this warp; from the sequence's end on: none
  const int32_t* first_key;

  __device__ explicit QueryBlock(const AttentionParams& p)
      : row(blockIdx.x / p.at.heads),
        head(blockIdx.x % p.at.heads),
        kv_head(head / p.at.group()),
        begin(static_cast<int>(blockIdx.y) * kWarps),
        end(std::min(begin + kWarps, p.at.sequence)),
        query(begin + Warp()),
        first_key(p.first_key == nullptr ? nullptr : p.first_key + row * p.at.sequence) {}
  __device__ bool has_query() const { return query < end; }
  // Calls body(whether this lane's key is seen) for tiles 0 and 1 of keys and values.
  template <class T, class Body>
  __device__ void ForEachTile(const AttentionParams& p, const RowMemory<T>& memory, Body body) const {
    const int first = first_key == nullptr || !has_query() ? 0 : first_key[query];
    for (int key = LowestFirstKey(first_key, begin, end) / kWarp * kWarp; key < end; key += kWarp) {
      __syncthreads();
      memory.FillTile(0, p.qkv, QkvRows(p, row, p.at.KeyPart(kv_head)), key, end);
      memory.FillTile(1, p.qkv, QkvRows(p, row, p.at.ValuePart(kv_head)), key, end);
      __syncthreads();
      body(key + Lane() <= query && key + Lane() >= first);
    }
  }
};

template <class T>
__global__ void __launch_bounds__(kThreads) RowForwardKernel(AttentionParams p) {
  const RowMemory<T> memory{p.at.head_size};
  const QueryBlock block(p);
  memory.FillOwn(0, p.qkv, QkvRows(p, block.row, block.head), block.query, block.end);
  float sums[kSums] = {}, sum = 0.0f, largest = -kInfinity;
  block.ForEachTile(p, memory, [&](bool seen) {
    const float score = seen ? memory.Dot(0, 0) * p.scale * kLog2E : -kInfinity;
    const float before = largest;
    largest = fmaxf(largest, WarpMaximum(score));
    const float base = largest == -kInfinity ? 0.0f : largest;
    const float correction = Exp2(before - base), weight = Exp2(score - base);
    sum = sum * correction + WarpSum(weight);
#pragma unroll
    for (int i = 0; i < kSums; ++i) sums[i] *= correction;
    memory.AddWeighted(weight, 1, sums);
  });
  if (!block.has_query()) return;
  memory.Store(sums, 1.0f / sum, p.y, YRows(p, block.row, block.head), block.query);
  if (Lane() == 0) p.lse[p.at.LseAt(block.row, block.head) + block.query] = largest / kLog2E + logf(sum);
}

// dq, and delta = dy . y for the gradient of the keys.
template <class T>
__global__ void __launch_bounds__(kThreads) RowQueryGradientKernel(AttentionParams p) {
  const RowMemory<T> memory{p.at.head_size};
  const QueryBlock block(p);
  memory.FillOwn(0, p.qkv, QkvRows(p, block.row, block.head), block.query, block.end);
  memory.FillOwn(1, p.dy, YRows(p, block.row, block.head), block.query, block.end);
  float base = kInfinity, delta = 0.0f;
  if (block.has_query()) {
    const int64_t at = p.at.LseAt(block.row, block.head) + block.query;
    const Rows rows = YRows(p, block.row, block.head);
    const T* const y = static_cast<const T*>(p.y) + rows.at + block.query * rows.stride;
    for (int d = Lane(); d < p.at.head_size; d += kWarp) delta += memory.Own(1)[d] * LoadElement(y + d);
    base = p.lse[at] * kLog2E;
    delta = WarpSum(delta);
    if (Lane() == 0) p.statistics[at] = delta;
  }
  float sums[kSums] = {};
  block.ForEachTile(p, memory, [&](bool seen) {
    const float probability = seen ? Exp2(memory.Dot(0, 0) * p.scale * kLog2E - base) : 0.0f;
    memory.AddWeighted(probability * (memory.Dot(1, 1) - delta), 0, sums);
  });
  if (block.has_query()) memory.Store(sums, p.scale, p.dqkv, QkvRows(p, block.row, block.head), block.query);
}

// Block (row and key head, group of keys): dk and dv of a key of each warp, from the queries of all heads of the group.
template <class T>
__global__ void __launch_bounds__(kThreads) RowKeyGradientKernel(AttentionParams p) {
  const RowMemory<T> memory{p.at.head_size};
  const int64_t row = blockIdx.x / p.at.kv_heads;
  const int kv_head = blockIdx.x % p.at.kv_heads, begin = static_cast<int>(blockIdx.y) * kWarps, key = begin + Warp();
  const Rows keys = QkvRows(p, row, p.at.KeyPart(kv_head)), values = QkvRows(p, row, p.at.ValuePart(kv_head));
  const int end = p.at.sequence, first_tile = begin / kWarp * kWarp;
  const int32_t* const first_key = p.first_key == nullptr ? nullptr : p.first_key + row * end;
  memory.FillOwn(0, p.qkv, keys, key, end);
  memory.FillOwn(1, p.qkv, values, key, end);
  float dk[kSums] = {}, dv[kSums] = {};
  for (int head = kv_head * p.at.group(); head < (kv_head + 1) * p.at.group(); ++head) {
    const int64_t statistics = p.at.LseAt(row, head);
    for (int tile = first_tile; tile < end; tile += kWarp) {
      __syncthreads();
      memory.FillTile(0, p.qkv, QkvRows(p, row, head), tile, end);
      memory.FillTile(1, p.dy, YRows(p, row, head), tile, end);
      __syncthreads();
      const int query = tile + Lane();
      const bool seen = key <= query && query < end && (first_key == nullptr || key >= first_key[query]);
      float probability = 0.0f, gradient = 0.0f;
      if (seen) {
        probability = Exp2(memory.Dot(0, 0) * p.scale * kLog2E - p.lse[statistics + query] * kLog2E);
        gradient = probability * (memory.Dot(1, 1) - p.statistics[statistics + query]);
      }
      memory.AddWeighted(probability, 1, dv);
      memory.AddWeighted(gradient, 0, dk);
    }
  }
  if (key >= end) return;
  memory.Store(dk, p.scale, p.dqkv, keys, key);
  memory.Store(dv, 1.0f, p.dqkv, values, key);
}

LaunchConfig Config(const char* name, cudaStream_t stream, const AttentionParams& p, int heads) {
  return {name, dim3(p.rows * heads, DivideUp(p.at.sequence, kWarps)), dim3(kThreads), SharedBytes(p.at.head_size),
          stream};
}
Region DeltaRegion(const AttentionParams& p) { return {p.statistics, LseRegion(p).bytes}; }

}  // namespace

int64_t RowStatisticsBytes(const AttentionShape& shape) {
  return shape.rows * shape.heads * shape.sequence * static_cast<int64_t>(sizeof(float));
}

cudaError_t LaunchRowForward(cudaStream_t stream, const AttentionParams& p) {
  return Launch(p.dtype == DType::kBF16 ? RowForwardKernel<BFloat16> : RowForwardKernel<float>,
                Config("AttentionForward", stream, p, p.at.heads), {QkvRegion(p), FirstKeyRegion(p)},
                {YRegion(p, p.y), LseRegion(p)}, p);
}
cudaError_t LaunchRowQueryGradient(cudaStream_t stream, const AttentionParams& p) {
  return Launch(p.dtype == DType::kBF16 ? RowQueryGradientKernel<BFloat16> : RowQueryGradientKernel<float>,
                Config("AttentionQueryGradient", stream, p, p.at.heads),
                {QkvRegion(p), FirstKeyRegion(p), YRegion(p, p.y), YRegion(p, p.dy), LseRegion(p)},
                {QueryGradientRegion(p), DeltaRegion(p)}, p);
}
cudaError_t LaunchRowKeyGradient(cudaStream_t stream, const AttentionParams& p) {
  return Launch(p.dtype == DType::kBF16 ? RowKeyGradientKernel<BFloat16> : RowKeyGradientKernel<float>,
                Config("AttentionKeyGradient", stream, p, p.at.kv_heads),
                {QkvRegion(p), FirstKeyRegion(p), YRegion(p, p.dy), LseRegion(p), DeltaRegion(p)},
                {KeyGradientRegion(p)}, p);
}

}  // namespace sluice::cuda
