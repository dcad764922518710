#include <algorithm>
#include <cstdint>

#include "kernels/cuda/attention_queries.h"
#include "kernels/cuda/attention_statistics.h"
#include "kernels/cuda/attention_tiles.h"
#include "kernels/cuda/pack.h"

namespace sluice::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kTiles = 2;  // of 16 queries: a warp's

// How many keys at a time: what the registers beside the sums have room for.
template <int kSize>
constexpr int kKeys = kSize == 64 ? 64 : 32;

// Queries and dy, two stages of keys and values, and a float of each query.
template <int kSize>
constexpr int kFloatsBegin = (2 * kTileQueries + 2 * 2 * kKeys<kSize>)*Tile<kSize>::kRowBytes;
template <int kSize>
constexpr int kSharedBytes = kFloatsBegin<kSize> + kTileQueries* static_cast<int>(sizeof(float));

// deltas[i] = dy[i] . y[i] of the rows below `count`, else 0: by neighbouring lanes, a chunk each.
template <int kSize>
__device__ __forceinline__ void DotRows(const BFloat16* y, const BFloat16* dy, int64_t stride, int count,
                                        float* deltas) {
  constexpr int kChunks = Tile<kSize>::kChunks, kRowsAtOnce = kThreads / kChunks;
  const int chunk = static_cast<int>(threadIdx.x) % kChunks;
#pragma unroll 4
  for (int row = static_cast<int>(threadIdx.x) / kChunks; row < kTileQueries; row += kRowsAtOnce) {
    float sum = 0.0f;
    if (row < count) {
      const Pack<8> a = Load<8>(y + row * stride + chunk * 8, Wide{}),
                    b = Load<8>(dy + row * stride + chunk * 8, Wide{});
#pragma unroll
      for (int i = 0; i < 8; ++i) sum += a[i] * b[i];
    }
#pragma unroll
    for (int distance = kChunks / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(kAllLanes, sum, distance);
    if (chunk == 0) deltas[row] = sum;
  }
}

// What the rows of a lane's results need.
struct RowStatistics {
  float base[kTiles][2];
  float delta[kTiles][2];
};

// scores -> their gradients: p (dp - delta), but for the scale.
template <int kN>
__device__ __forceinline__ void ScoreGradients(float scale, const RowStatistics& rows, const Results<kTiles, kN>& dp,
                                               Results<kTiles, kN>& scores) {
#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
#pragma unroll
    for (int n = 0; n < kN; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float& score = scores.at[m][n][i];
        score = Exp2(score * scale - rows.base[m][i / 2]) * (dp.at[m][n][i] - rows.delta[m][i / 2]);
      }
    }
  }
}

// Block (row and head, block of queries): dq of kTileQueries queries, which pass over the keys they see as in the
// forward pass; and the statistics of these queries.
template <int kSize>
__global__ void __launch_bounds__(kThreads, 2) TileQueryGradientKernel(AttentionParams p) {
  constexpr int kStep = kKeys<kSize>;
  const int64_t row = blockIdx.x / p.at.heads, width = p.at.width(), y_width = p.at.y_width();
  const int head = blockIdx.x % p.at.heads;
  const int begin = static_cast<int>(gridDim.y - 1 - blockIdx.y) * kTileQueries;  // the longest first
  const int end = std::min(begin + kTileQueries, p.at.sequence);
  constexpr Tile<kSize> q{0}, dy{kTileQueries * Tile<kSize>::kRowBytes};
  const auto stage = [](int key, int part) {
    return Tile<kSize>{(2 * kTileQueries + (key & kStep) * 2 + part * kStep) * Tile<kSize>::kRowBytes};
  };
  const BFloat16* const qkv = static_cast<const BFloat16*>(p.qkv);
  const int64_t y_at = p.at.YAt(row, head) + begin * y_width;
  const BFloat16* const dy_rows = static_cast<const BFloat16*>(p.dy) + y_at;
  const int32_t* const first_key = p.first_key == nullptr ? nullptr : p.first_key + row * p.at.sequence;
  int key = LowestFirstKey(first_key, begin, end) / kStep * kStep;
  RowSource<kSize, kThreads>(qkv + p.at.QkvAt(row, head) + begin * width, width)
      .template CopyAsync<kTileQueries>(0, p.at.sequence - begin, q);
  RowSource<kSize, kThreads>(dy_rows, y_width).template CopyAsync<kTileQueries>(0, p.at.sequence - begin, dy);
  RowSource<kSize, kThreads> keys(qkv + p.at.QkvAt(row, p.at.KeyPart(head / p.at.group())) + key * width, width);
  const auto load = [&](int key) {
    keys.template CopyAsync<kStep>(0, p.at.sequence - key, stage(key, 0));
    keys.template CopyAsync<kStep>(p.at.kv_heads * kSize, p.at.sequence - key, stage(key, 1));
    keys.Skip(kStep);
    CommitAsync();
  };
  load(key);

  const WarpQueries<kTiles> queries{first_key, begin + Warp() * kTiles * 16, p.at.sequence};
  const RowStatistics statistics = [&] {
    float* const deltas = reinterpret_cast<float*>(SharedMemory<unsigned char>() + kFloatsBegin<kSize>);
    DotRows<kSize>(static_cast<const BFloat16*>(p.y) + y_at, dy_rows, y_width, p.at.sequence - begin, deltas);
    __syncthreads();
    const float* const lse = p.lse + p.at.LseAt(row, head);
    const auto base = [&](int query) { return query < p.at.sequence ? lse[query] * kLog2E : kInfinity; };
    const int query = begin + static_cast<int>(threadIdx.x);
    const auto store = [&](QueryPlane plane, auto value) {
      reinterpret_cast<decltype(value)*>(p.statistics + StatisticsAt(p.at, row, head, plane))[query] = value;
    };
    store(QueryPlane::kBase, base(query));
    store(QueryPlane::kDelta, deltas[threadIdx.x]);
    if (first_key != nullptr) store(QueryPlane::kFirstKey, queries.FirstKey(query));
    RowStatistics rows;
#pragma unroll
    for (int i = 0; i < kTiles * 2; ++i) {
      rows.base[i / 2][i % 2] = base(queries.At(i / 2, i % 2));
      rows.delta[i / 2][i % 2] = deltas[queries.At(i / 2, i % 2) - begin];
    }
    return rows;
  }();

  Results<kTiles, kSize / 8> sums;
  sums.Clear();
  for (; key < end; key += kStep) {
    WaitAsync<0>();
    __syncthreads();
    if (key + kStep < end) load(key + kStep);
    if (queries.Precede(key)) continue;
    const int warp_row = Warp() * kTiles * 16;
    auto scores = DotProducts<kTiles, kStep / 8>(Stacked<kSize>(q, warp_row), Beside<kSize>(stage(key, 0)));
    const auto dp = DotProducts<kTiles, kStep / 8>(Stacked<kSize>(dy, warp_row), Beside<kSize>(stage(key, 1)));
    if (!queries.SeeAllBefore(key + kStep)) Mask(queries, key, -kInfinity, scores);
    ScoreGradients(p.scale * kLog2E, statistics, dp, scores);
    AddProduct(Rounded(scores), Stacked<kSize>(stage(key, 0)), sums);
  }
  sums.Multiply(p.scale);
  __syncwarp();
  StoreRows(sums, q, Warp() * kTiles * 16,
            static_cast<BFloat16*>(p.dqkv) + p.at.QkvAt(row, head) + queries.begin * width, width,
            p.at.sequence - queries.begin);
}

}  // namespace

int64_t TileStatisticsBytes(const AttentionShape& shape) {
  return shape.rows * shape.heads * kQueryPlanes * PaddedQueries(static_cast<int>(shape.sequence)) *
         static_cast<int64_t>(sizeof(float));
}

cudaError_t LaunchTileQueryGradient(cudaStream_t stream, const AttentionParams& p) {
  const bool small = p.at.head_size == 64;
  const LaunchConfig config{"AttentionQueryGradient", dim3(p.rows * p.at.heads, DivideUp(p.at.sequence, kTileQueries)),
                            dim3(kThreads), small ? kSharedBytes<64> : kSharedBytes<128>, stream};
  return Launch(small ? TileQueryGradientKernel<64> : TileQueryGradientKernel<128>, config,
                {QkvRegion(p), FirstKeyRegion(p), YRegion(p, p.y), YRegion(p, p.dy), LseRegion(p)},
                {QueryGradientRegion(p), StatisticsRegion(p)}, p);
}

}  // namespace sluice::cuda
