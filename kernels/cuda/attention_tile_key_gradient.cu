#include <cstdint>

#include "kernels/cuda/attention_queries.h"
#include "kernels/cuda/attention_statistics.h"
#include "kernels/cuda/attention_tiles.h"

namespace sluice::cuda {
namespace {

constexpr int kKeys = 128;  // of a block
// A warp's keys, in tiles of 16, and how many queries it meets at once: two sums of kTiles * 16 rows, scores and their
// gradients share its registers.
template <int kSize>
constexpr int kTiles = kSize == 64 ? 2 : 1;
constexpr int kStep = 32;
template <int kSize>
constexpr int kQueries = kSize == 64 ? kStep : 2 * kStep;  // of a stage
template <int kSize>
constexpr int kThreads = kKeys / (kTiles<kSize> * 16) * kWarp;

// Keys and values; then two stages of queries, dy and the queries' statistics.
template <int kSize>
struct Shared {
  static constexpr int kTileBytes = kQueries<kSize> * Tile<kSize>::kRowBytes, kPlaneBytes = kQueries<kSize> * 4;
  static constexpr int kStagesBegin = 2 * kKeys * Tile<kSize>::kRowBytes;
  static constexpr int kStageBytes = 2 * kTileBytes + kQueryPlanes * kPlaneBytes;
  static constexpr int kBytes = kStagesBegin + 2 * kStageBytes;
  static_assert(kStageBytes % 128 == 0);

  static constexpr Tile<kSize> keys{0}, values{kKeys * Tile<kSize>::kRowBytes};
  int begin;  // of a stage
  __device__ __forceinline__ explicit Shared(int stage) : begin(kStagesBegin + stage * kStageBytes) {}
  __device__ __forceinline__ Tile<kSize> q() const { return {begin}; }
  __device__ __forceinline__ Tile<kSize> dy() const { return {begin + kTileBytes}; }
  template <class T>
  __device__ __forceinline__ T* Plane(QueryPlane plane) const {
    const int at = begin + 2 * kTileBytes + static_cast<int>(plane) * kPlaneBytes;
    return reinterpret_cast<T*>(SharedMemory<unsigned char>() + at);
  }
};

// The end of the queries that see any of the keys [key, key_end).
__device__ __forceinline__ int QueriesEnd(const AttentionParams& p, int64_t row, int key, int key_end) {
  if (p.first_key == nullptr) return p.at.sequence;
  const int32_t* const first_key = p.first_key + row * p.at.sequence;
  int last = key;
  for (int query = key + Lane(); query < p.at.sequence; query += kWarp) {
    if (first_key[query] < key_end) last = query;
  }
  return -WarpMinimum(-last) + 1;
}

// A thread's share of copying queries, their dy and their statistics; it passes over the queries of a head, then those
// of the next.
template <int kSize>
struct QuerySource {
  RowSource<kSize, kThreads<kSize>> q, dy;
  int statistics;  // words before this thread's

  __device__ __forceinline__ QuerySource(const AttentionParams& p, int64_t row, int head, int query)
      : q(static_cast<const BFloat16*>(p.qkv) + p.at.QkvAt(row, head) + query * p.at.width(), p.at.width()),
        dy(static_cast<const BFloat16*>(p.dy) + p.at.YAt(row, head) + query * p.at.y_width(), p.at.y_width()),
        statistics(static_cast<int>(StatisticsAt(p.at, row, head, Plane())) + query + Word()) {}
  __device__ __forceinline__ static QueryPlane Plane() {
    return static_cast<QueryPlane>(static_cast<int>(threadIdx.x) / (kQueries<kSize> / 4));
  }
  __device__ __forceinline__ static int Word() { return static_cast<int>(threadIdx.x) % (kQueries<kSize> / 4) * 4; }
  __device__ __forceinline__ void Skip(int queries) {
    q.Skip(queries);
    dy.Skip(queries);
    statistics += queries;
  }
  __device__ __forceinline__ void NextHead(const AttentionParams& p) {
    q.chunk += kSize;
    dy.chunk += kSize;
    statistics += kQueryPlanes * PaddedQueries(p.at.sequence);
  }
  // `count` queries exist.
  __device__ __forceinline__ void CopyAsync(const AttentionParams& p, int count, Shared<kSize> stage) const {
    q.template CopyAsync<kQueries<kSize>>(0, count, stage.q());
    dy.template CopyAsync<kQueries<kSize>>(0, count, stage.dy());
    if (Plane() < (p.first_key == nullptr ? QueryPlane::kFirstKey : QueryPlane::kEnd)) {
      CopyAsync16(stage.template Plane<float>(Plane()) + Word(), p.statistics + statistics);
    }
    CommitAsync();
  }
};

// Scores and the probabilities' gradients of keys (rows) by queries (columns), from `query` of the stage on -> the
// probabilities and, but for the scale, the scores' gradients.
template <int kSize, int kM, int kN>
__device__ __forceinline__ void ScoreGradients(float scale, Shared<kSize> stage, int query, Results<kM, kN>& p,
                                               Results<kM, kN>& dp) {
#pragma unroll
  for (int j = 0; j < kN * 2; ++j) {
    const int column = query + Lane() % 4 * 2 + j / 2 * 8 + j % 2;
    const float base = stage.template Plane<float>(QueryPlane::kBase)[column];
    const float delta = stage.template Plane<float>(QueryPlane::kDelta)[column];
#pragma unroll
    for (int i = 0; i < kM * 2; ++i) {
      float& score = p.at[i / 2][j / 2][i % 2 * 2 + j % 2];
      float& gradient = dp.at[i / 2][j / 2][i % 2 * 2 + j % 2];
      score = Exp2(score * scale - base);
      gradient = score * (gradient - delta);
    }
  }
}

// Hides scores of queries that come before the key; `distance` is from this lane's first query to its first key.
template <int kM, int kN>
__device__ __forceinline__ void MaskFuture(int distance, Results<kM, kN>& scores) {
#pragma unroll
  for (int j = 0; j < kN * 2; ++j) {
#pragma unroll
    for (int i = 0; i < kM * 2; ++i) {
      if (distance + i * 8 > j / 2 * 8 + j % 2) scores.at[i / 2][j / 2][i % 2 * 2 + j % 2] = -kInfinity;
    }
  }
}
// Hides scores of queries whose first key comes behind the key; `key` is this lane's first.
template <int kSize, int kM, int kN>
__device__ __forceinline__ void MaskFirstKeys(Shared<kSize> stage, int query, int key, Results<kM, kN>& scores) {
#pragma unroll
  for (int j = 0; j < kN * 2; ++j) {
    const int column = query + Lane() % 4 * 2 + j / 2 * 8 + j % 2;
    const int first = stage.template Plane<int32_t>(QueryPlane::kFirstKey)[column];
#pragma unroll
    for (int i = 0; i < kM * 2; ++i) {
      if (key + i * 8 < first) scores.at[i / 2][j / 2][i % 2 * 2 + j % 2] = -kInfinity;
    }
  }
}

// Block (row and key head, block of keys): dk and dv of kKeys keys, which the queries of all heads of the group pass
// over, head by head. Scores are computed as keys by queries, so that each warp owns keys and its probabilities are the
// left-hand side of the next product as they are.
template <int kSize>
__global__ void __launch_bounds__(kThreads<kSize>, kSize == 64 ? 2 : 1) TileKeyGradientKernel(AttentionParams p) {
  constexpr int kM = kTiles<kSize>, kN = kStep / 8;
  const int64_t row = blockIdx.x / p.at.kv_heads, width = p.at.width();
  const int kv_head = blockIdx.x % p.at.kv_heads;
  const int begin = static_cast<int>(blockIdx.y) * kKeys, warp_row = Warp() * kM * 16, warp_key = begin + warp_row;
  const int64_t keys_at = p.at.QkvAt(row, p.at.KeyPart(kv_head)) + begin * width;
  const RowSource<kSize, kThreads<kSize>> keys(static_cast<const BFloat16*>(p.qkv) + keys_at, width);
  keys.template CopyAsync<kKeys>(0, p.at.sequence - begin, Shared<kSize>::keys);
  keys.template CopyAsync<kKeys>(p.at.kv_heads * kSize, p.at.sequence - begin, Shared<kSize>::values);
  QuerySource<kSize> source(p, row, kv_head * p.at.group(), begin);
  source.CopyAsync(p, p.at.sequence - begin, Shared<kSize>(0));

  const int end = QueriesEnd(p, row, begin, begin + kKeys);
  Results<kM, kSize / 8> dk, dv;
  dk.Clear();
  dv.Clear();
  int heads = p.at.group();  // that are left
  for (int tile = begin, i = 0; heads > 0; i ^= 1) {
    const Shared<kSize> stage(i);
    WaitAsync<0>();
    __syncthreads();
    int next = tile + kQueries<kSize>;
    source.Skip(kQueries<kSize>);
    if (next >= end) {
      source.Skip(begin - next);
      source.NextHead(p);
      next = begin;
      --heads;
    }
    if (heads > 0) source.CopyAsync(p, p.at.sequence - next, Shared<kSize>(i ^ 1));
#pragma unroll 1
    for (int step = 0; step < kQueries<kSize>; step += kStep) {
      const int query = tile + step;
      if (query + kStep <= warp_key) continue;  // all of them come before the keys
      auto scores = DotProducts<kM, kN>(Stacked<kSize>(Shared<kSize>::keys, warp_row), Beside<kSize>(stage.q(), step));
      auto dp = DotProducts<kM, kN>(Stacked<kSize>(Shared<kSize>::values, warp_row), Beside<kSize>(stage.dy(), step));
      const int key = warp_key + Lane() / 4;
      if (p.first_key != nullptr) MaskFirstKeys(stage, step, key, scores);
      if (query < warp_key + kM * 16 - 1) MaskFuture(key - (query + Lane() % 4 * 2), scores);
      ScoreGradients(p.scale * kLog2E, stage, step, scores, dp);
      AddProduct(Rounded(scores), Stacked<kSize>(stage.dy(), step), dv);
      AddProduct(Rounded(dp), Stacked<kSize>(stage.q(), step), dk);
    }
    tile = next;
  }
  dk.Multiply(p.scale);
  BFloat16* const gradient = static_cast<BFloat16*>(p.dqkv) + keys_at + warp_row * width;
  __syncwarp();
  StoreRows(dk, Shared<kSize>::keys, warp_row, gradient, width, p.at.sequence - warp_key);
  StoreRows(dv, Shared<kSize>::values, warp_row, gradient + p.at.kv_heads * kSize, width, p.at.sequence - warp_key);
}

}  // namespace

cudaError_t LaunchTileKeyGradient(cudaStream_t stream, const AttentionParams& p) {
  const bool small = p.at.head_size == 64;
  const LaunchConfig config{"AttentionKeyGradient", dim3(p.rows * p.at.kv_heads, DivideUp(p.at.sequence, kKeys)),
                            dim3(small ? kThreads<64> : kThreads<128>),
                            small ? Shared<64>::kBytes : Shared<128>::kBytes, stream};
  return Launch(small ? TileKeyGradientKernel<64> : TileKeyGradientKernel<128>, config,
                {QkvRegion(p), YRegion(p, p.dy), FirstKeyRegion(p), StatisticsRegion(p)}, {KeyGradientRegion(p)}, p);
}

}  // namespace sluice::cuda
