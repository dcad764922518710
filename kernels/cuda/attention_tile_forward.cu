#include <algorithm>
#include <cstdint>

#include "kernels/cuda/attention_queries.h"
#include "kernels/cuda/attention_tiles.h"

namespace sluice::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kTiles = 2;  // of 16 queries: a warp's

// How many keys at a time: what the registers beside the sums have room for.
template <int kSize>
constexpr int kKeys = kSize == 64 ? 64 : 32;

// Queries, and two stages of keys and values.
template <int kSize>
constexpr int SharedBytes() {
  return (kTileQueries + 2 * 2 * kKeys<kSize>)*kSize * static_cast<int>(sizeof(BFloat16));
}

// The running softmax of a warp's queries: of each row the largest score so far, and this lane's part of the sum of
// exponentials of the differences from it.
struct RunningSoftmax {
  float largest[kTiles][2];
  float sum[kTiles][2];
  __device__ __forceinline__ RunningSoftmax() {
#pragma unroll
    for (int i = 0; i < kTiles * 2; ++i) largest[i / 2][i % 2] = -kInfinity, sum[i / 2][i % 2] = 0.0f;
  }
};

// Turns scores into exponentials, and scales sums that were made with a smaller maximum. `scale` is of powers of 2.
template <int kN, int kColumns>
__device__ __forceinline__ void Exponentiate(float scale, Results<kTiles, kN>& scores, RunningSoftmax& softmax,
                                             Results<kTiles, kColumns>& sums) {
#pragma unroll
  for (int i = 0; i < kTiles * 2; ++i) {
    const int m = i / 2, half = i % 2 * 2;
    float largest = softmax.largest[m][i % 2];
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      largest = fmaxf(largest, fmaxf(scores.at[m][n][half], scores.at[m][n][half + 1]));
    }
    largest = QuadMaximum(largest);
    // A row that has seen no key keeps zeros.
    const float base = largest == -kInfinity ? 0.0f : largest * scale;
    const float correction = Exp2(softmax.largest[m][i % 2] * scale - base);
    float sum = softmax.sum[m][i % 2] * correction;
#pragma unroll
    for (int n = 0; n < kN; ++n) {
#pragma unroll
      for (int j = half; j < half + 2; ++j) sum += scores.at[m][n][j] = Exp2(scores.at[m][n][j] * scale - base);
    }
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
#pragma unroll
      for (int j = half; j < half + 2; ++j) sums.at[m][n][j] *= correction;
    }
    softmax.largest[m][i % 2] = largest;
    softmax.sum[m][i % 2] = sum;
  }
}

// y = sums / sum, and lse; a warp's rows of `staging` are its own.
template <int kSize>
__device__ __forceinline__ void StoreResults(const AttentionParams& p, const WarpQueries<kTiles>& queries, int64_t row,
                                             int head, RunningSoftmax& softmax, Results<kTiles, kSize / 8>& sums,
                                             Tile<kSize> staging) {
#pragma unroll
  for (int i = 0; i < kTiles * 2; ++i) {
    const int m = i / 2, half = i % 2 * 2, query = queries.At(m, i % 2);
    const float sum = QuadSum(softmax.sum[m][i % 2]);
#pragma unroll
    for (int n = 0; n < kSize / 8; ++n) {
#pragma unroll
      for (int j = half; j < half + 2; ++j) sums.at[m][n][j] *= 1.0f / sum;
    }
    if (Lane() % 4 == 0 && query < p.at.sequence) {
      p.lse[p.at.LseAt(row, head) + query] = softmax.largest[m][i % 2] * p.scale + logf(sum);
    }
  }
  __syncwarp();
  StoreRows(sums, staging, queries.begin % kTileQueries,
            static_cast<BFloat16*>(p.y) + p.at.YAt(row, head) + queries.begin * p.at.y_width(), p.at.y_width(),
            p.at.sequence - queries.begin);
}

// Block (row and head, block of queries): kTileQueries queries pass over the keys they see. While one stage of keys and
// values is used the next is on its way; one barrier a stage both shows what has come and frees the place of what was
// used before.
template <int kSize>
__global__ void __launch_bounds__(kThreads, 2) TileForwardKernel(AttentionParams p) {
  constexpr int kStep = kKeys<kSize>;
  const int64_t row = blockIdx.x / p.at.heads, width = p.at.width();
  const int head = blockIdx.x % p.at.heads;
  const int begin = static_cast<int>(gridDim.y - 1 - blockIdx.y) * kTileQueries;  // the longest first
  const int end = std::min(begin + kTileQueries, p.at.sequence);
  constexpr Tile<kSize> q{0};
  const auto stage = [](int key, int part) {
    return Tile<kSize>{(kTileQueries + (key & kStep) * 2 + part * kStep) * Tile<kSize>::kRowBytes};
  };
  const BFloat16* const qkv = static_cast<const BFloat16*>(p.qkv);
  const int32_t* const first_key = p.first_key == nullptr ? nullptr : p.first_key + row * p.at.sequence;
  int key = LowestFirstKey(first_key, begin, end) / kStep * kStep;
  RowSource<kSize, kThreads>(qkv + p.at.QkvAt(row, head) + begin * width, width)
      .template CopyAsync<kTileQueries>(0, p.at.sequence - begin, q);
  RowSource<kSize, kThreads> keys(qkv + p.at.QkvAt(row, p.at.KeyPart(head / p.at.group())) + key * width, width);
  const auto load = [&](int key) {
    keys.template CopyAsync<kStep>(0, p.at.sequence - key, stage(key, 0));
    keys.template CopyAsync<kStep>(p.at.kv_heads * kSize, p.at.sequence - key, stage(key, 1));
    keys.Skip(kStep);
    CommitAsync();
  };

  load(key);
  const WarpQueries<kTiles> queries{first_key, begin + Warp() * kTiles * 16, p.at.sequence};
  RunningSoftmax softmax;
  Results<kTiles, kSize / 8> sums;
  sums.Clear();
  for (; key < end; key += kStep) {
    WaitAsync<0>();
    __syncthreads();
    if (key + kStep < end) load(key + kStep);
    if (queries.Precede(key)) continue;
    auto scores = DotProducts<kTiles, kStep / 8>(Stacked<kSize>(q, Warp() * kTiles * 16), Beside<kSize>(stage(key, 0)));
    if (!queries.SeeAllBefore(key + kStep)) Mask(queries, key, -kInfinity, scores);
    Exponentiate(p.scale * kLog2E, scores, softmax, sums);
    AddProduct(Rounded(scores), Stacked<kSize>(stage(key, 1)), sums);
  }
  StoreResults(p, queries, row, head, softmax, sums, q);
}

}  // namespace

cudaError_t LaunchTileForward(cudaStream_t stream, const AttentionParams& p) {
  const bool small = p.at.head_size == 64;
  const LaunchConfig config{"AttentionForward", dim3(p.rows * p.at.heads, DivideUp(p.at.sequence, kTileQueries)),
                            dim3(kThreads), small ? SharedBytes<64>() : SharedBytes<128>(), stream};
  return Launch(small ? TileForwardKernel<64> : TileForwardKernel<128>, config, {QkvRegion(p), FirstKeyRegion(p)},
                {YRegion(p, p.y), LseRegion(p)}, p);
}

}  // namespace sluice::cuda
