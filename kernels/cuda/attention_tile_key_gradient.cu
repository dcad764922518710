#include <cstdint>

#include "kernels/cuda/attention_queries.h"
#include "kernels/cuda/attention_statistics.h"
#include "kernels/cuda/attention_tiles.h"

namespace sluice::cuda {
namespace {

constexpr int kKeys = 128;    // of a block
constexpr int kQueries = 64;  // of a stage

// A warp's keys, in tiles of 16, and how many queries it takes at once: two sums of kTiles * 16 rows, scores and their
// gradients share its registers.
template <int kSize>
constexpr int kTiles = kSize == 64 ? 2 : 1;
template <int kSize>
constexpr int kStep = 32;
template <int kSize>
constexpr int kThreads = kKeys / (kTiles<kSize> * 16) * kWarp;

// Keys and values; then two stages of queries, dy and the queries' statistics.
template <int kSize>
struct Shared {
  static constexpr int kTileBytes = kQueries * Tile<kSize>::kRowBytes, kPlaneBytes = kQueries * 4;
  static constexpr int kStagesBegin = 2 * kKeys * Tile<kSize>::kRowBytes;
  static constexpr int kStageBytes = 2 * kTileBytes + QueryStatistics::kPlanes * kPlaneBytes;
  static constexpr int kBytes = kStagesBegin + 2 * kStageBytes;
  static_assert(kStageBytes % 128 == 0);

  static constexpr Tile<kSize> keys{0}, values{kKeys * Tile<kSize>::kRowBytes};
  int begin;  // of a stage
  __device__ __forceinline__ explicit Shared(int stage) : begin(kStagesBegin + stage * kStageBytes) {}
  __device__ __forceinline__ Tile<kSize> q() const { return {begin}; }
  __device__ __forceinline__ Tile<kSize> dy() const { return {begin + kTileBytes}; }
  template <class T>
  __device__ __forceinline__ T* Plane(int plane) const {
    return reinterpret_cast<T*>(SharedMemory<unsigned char>() + begin + 2 * kTileBytes + plane * kPlaneBytes);
  }
};

// Which queries a block of keys meets: of each head of its group those from `begin` on, one tile after another.
struct QueryTile {
  int head;
  int query;
};
struct QueryTiles {
  int begin, end;
  int head_end;
  __device__ __forceinline__ QueryTile Next(QueryTile tile) const {
    tile.query += kQueries;
    return tile.query < end ? tile : QueryTile{tile.head + 1, begin};
  }
  __device__ __forceinline__ bool Has(const QueryTile& tile) const { return tile.head < head_end; }
};

// The end of the queries that see any of the keys [key, key_end).
__device__ __forceinline__ int QueriesEnd(const int32_t* first_key, int key, int key_end, int sequence) {
  if (first_key == nullptr) return sequence;
  int last = key;
  for (int query = key + Lane(); query < sequence; query += kWarp) {
    if (first_key[query] < key_end) last = query;
  }
  return -WarpMinimum(-last) + 1;
}

template <int kSize>
__device__ __forceinline__ void LoadStage(const AttentionParams& p, int64_t row, QueryTile tile, Shared<kSize> stage) {
  constexpr int kAll = kThreads<kSize>;
  const int64_t width = p.at.width(), y_width = p.at.y_width();
  const int count = p.at.sequence - tile.query;
  RowSource<kSize, kAll>(static_cast<const BFloat16*>(p.qkv) + p.at.QkvAt(row, tile.head) + tile.query * width, width)
      .template CopyAsync<kQueries>(0, count, stage.q());
  RowSource<kSize, kAll>(static_cast<const BFloat16*>(p.dy) + p.at.YAt(row, tile.head) + tile.query * y_width, y_width)
      .template CopyAsync<kQueries>(0, count, stage.dy());
  const QueryStatistics statistics(p, row, tile.head);
  constexpr int kChunks = kQueries / 4;
  const int plane = static_cast<int>(threadIdx.x) / kChunks, word = static_cast<int>(threadIdx.x) % kChunks * 4;
  if (plane < (p.first_key == nullptr ? QueryStatistics::kPlanes - 1 : QueryStatistics::kPlanes)) {
    CopyAsync16(stage.template Plane<float>(plane) + word,
                statistics.base + plane * PaddedQueries(p.at.sequence) + tile.query + word);
  }
  CommitAsync();
}

// Scores and the probabilities' gradients of keys (rows) by queries (columns), from `query` of the stage on -> the
// probabilities and, but for the scale, the scores' gradients. `distance`: from this lane's first query to its first key.
template <int kSize, int kM, int kN>
__device__ __forceinline__ void ScoreGradients(float scale, Shared<kSize> stage, int query, int distance, bool masked,
                                               const int32_t* first_key, Results<kM, kN>& p, Results<kM, kN>& dp) {
#pragma unroll
  for (int j = 0; j < kN * 2; ++j) {
    const int further = j / 2 * 8 + j % 2, column = query + Lane() % 4 * 2 + further;
    const float base = stage.template Plane<float>(0)[column], delta = stage.template Plane<float>(1)[column];
#pragma unroll
    for (int i = 0; i < kM * 2; ++i) {
      float& score = p.at[i / 2][j / 2][i % 2 * 2 + j % 2];
      float& gradient = dp.at[i / 2][j / 2][i % 2 * 2 + j % 2];
      score = Exp2(score * scale - base);
      if (masked && distance + i * 8 > further) score = 0.0f;
      gradient = score * (gradient - delta);
    }
  }
}

// Puts 0 where a query's first key comes behind the key; `key` is this lane's first.
template <int kSize, int kM, int kN>
__device__ __forceinline__ void MaskFirstKeys(Shared<kSize> stage, int query, int key, Results<kM, kN>& scores) {
#pragma unroll
  for (int j = 0; j < kN * 2; ++j) {
    const int first = stage.template Plane<int32_t>(2)[query + Lane() % 4 * 2 + j / 2 * 8 + j % 2];
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
  constexpr int kM = kTiles<kSize>, kN = kStep<kSize> / 8;
  const int64_t row = blockIdx.x / p.at.kv_heads, width = p.at.width();
  const int kv_head = blockIdx.x % p.at.kv_heads;
  const int begin = static_cast<int>(blockIdx.y) * kKeys;
  const int warp_row = Warp() * kM * 16, warp_key = begin + warp_row;
  const int32_t* const first_key = p.first_key == nullptr ? nullptr : p.first_key + row * p.at.sequence;
  const int first_head = kv_head * p.at.group();
  const QueryTiles tiles{begin, QueriesEnd(first_key, begin, begin + kKeys, p.at.sequence), first_head + p.at.group()};
  const int64_t keys_at = p.at.QkvAt(row, p.at.KeyPart(kv_head)) + begin * width;
  const RowSource<kSize, kThreads<kSize>> keys(static_cast<const BFloat16*>(p.qkv) + keys_at, width);
  keys.template CopyAsync<kKeys>(0, p.at.sequence - begin, Shared<kSize>::keys);
  keys.template CopyAsync<kKeys>(p.at.kv_heads * kSize, p.at.sequence - begin, Shared<kSize>::values);
  QueryTile tile{first_head, begin};
  LoadStage(p, row, tile, Shared<kSize>(0));

  Results<kM, kSize / 8> dk, dv;
  dk.Clear();
  dv.Clear();
  for (int i = 0; tiles.Has(tile); i ^= 1) {
    const Shared<kSize> stage(i);
    const QueryTile next = tiles.Next(tile);
    WaitAsync<0>();
    __syncthreads();
    if (tiles.Has(next)) LoadStage(p, row, next, Shared<kSize>(i ^ 1));
#pragma unroll 1
    for (int step = 0; step < kQueries; step += kStep<kSize>) {
      const int query = tile.query + step;
      if (query + kStep<kSize> <= warp_key) continue;  // all of them come before the keys
      auto scores = DotProducts<kM, kN>(Stacked<kSize>(Shared<kSize>::keys, warp_row), Beside<kSize>(stage.q(), step));
      auto dp = DotProducts<kM, kN>(Stacked<kSize>(Shared<kSize>::values, warp_row), Beside<kSize>(stage.dy(), step));
      const int key = warp_key + Lane() / 4;
      if (first_key != nullptr) MaskFirstKeys(stage, step, key, scores);
      const bool masked = query < warp_key + kM * 16 - 1;
      ScoreGradients(p.scale * kLog2E, stage, step, key - (query + Lane() % 4 * 2), masked, first_key, scores, dp);
      AddProduct(Rounded(scores), Stacked<kSize>(stage.dy(), step), dv);
      AddProduct(Rounded(dp), Stacked<kSize>(stage.q(), step), dk);
    }
    tile = next;
  }
  dk.Multiply(p.scale);
  BFloat16* const gradient = static_cast<BFloat16*>(p.dqkv) + keys_at + warp_row * width;
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
