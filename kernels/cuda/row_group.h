// How kernels share the rows of a matrix: a row belongs to a group of threads, a warp where it is short, else a block.
// Sums over a row are of a fixed shape: each thread adds its packs in order, then a butterfly over the lanes, then the
// warps in order. So they depend on the row's length only.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/pack.h"

namespace sluice::cuda {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;
inline constexpr int kShortRowThreads = 128;  // four rows
inline constexpr int kLongRowThreads = 512;
// Bytes that a group keeps of its row in shared memory, of a row that one warp works on: else a multiprocessor has room
// for too few of them.
inline constexpr int64_t kShortRowBytes = 16384;

template <int kCount>
__device__ __forceinline__ Pack<kCount> SumOverWarp(Pack<kCount> sums) {
#pragma unroll
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) sums[i] += __shfl_xor_sync(kAllLanes, sums[i], distance);
  }
  return sums;
}

// Every thread of a block gets the sums; `scratch` has room for kCount floats of each warp. It is still being read when this
// returns: what writes it next comes after a barrier.
template <int kCount>
__device__ __forceinline__ Pack<kCount> SumOverBlock(Pack<kCount> sums, float* scratch) {
  sums = SumOverWarp(sums);
  if (threadIdx.x % kWarp == 0) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) scratch[threadIdx.x / kWarp * kCount + i] = sums[i];
  }
  __syncthreads();
  sums = {};
  for (int warp = 0; warp < static_cast<int>(blockDim.x) / kWarp; ++warp) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) sums[i] += scratch[warp * kCount + i];
  }
  return sums;
}

// Passes over a NaN. `scratch` has room for a float of each warp, and is as above.
__device__ __forceinline__ float MaximumOverBlock(float x, float* scratch) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, distance));
  }
  if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = x;
  __syncthreads();
  for (int warp = 0; warp < static_cast<int>(blockDim.x) / kWarp; ++warp) x = fmaxf(x, scratch[warp]);
  return x;
}

struct ShortRows {
  static constexpr int kThreads = kWarp;
  __device__ static int64_t Row() { return int64_t{blockIdx.x} * (kShortRowThreads / kWarp) + threadIdx.x / kWarp; }
  __device__ static int Thread() { return threadIdx.x % kWarp; }
  // Memory of this group alone, of `bytes` (a multiple of 16).
  __device__ static unsigned char* Kept(int bytes) {
    return SharedMemory<unsigned char>() + threadIdx.x / kWarp * bytes;
  }
  // `turn`: 0, 1 for a kernel's first and second sum.
  template <int kCount>
  __device__ static Pack<kCount> Sum(Pack<kCount> sums, int /*turn*/) {
    return SumOverWarp(sums);
  }
};

struct LongRows {
  static constexpr int kThreads = kLongRowThreads;
  static constexpr int kTurnFloats = 2 * kThreads / kWarp;  // two of each warp at most
  static constexpr int kScratchBytes = 2 * kTurnFloats * static_cast<int>(sizeof(float));
  __device__ static int64_t Row() { return blockIdx.x; }
  __device__ static int Thread() { return threadIdx.x; }
  __device__ static unsigned char* Kept(int) { return SharedMemory<unsigned char>() + kScratchBytes; }
  template <int kCount>
  __device__ static Pack<kCount> Sum(Pack<kCount> sums, int turn) {
    return SumOverBlock(sums, SharedMemory<float>() + turn * kTurnFloats);
  }
};

// Bytes of a row, rounded up to what 16-byte accesses need.
template <class T>
__host__ __device__ constexpr int RowBytes(int columns) {
  return (columns * static_cast<int>(sizeof(T)) + 15) / 16 * 16;
}
inline int64_t RowBytes(DType type, int64_t columns) { return (columns * SizeOf(type) + 15) / 16 * 16; }

inline int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Whether all of these addresses (an absent tensor's too) allow 16-byte accesses.
inline bool Aligned(std::initializer_list<const void*> addresses) {
  return std::all_of(addresses.begin(), addresses.end(),
                     [](const void* address) { return reinterpret_cast<uintptr_t>(address) % 16 == 0; });
}

// The width of packs that rows of so many columns are cut into.
inline int RowWidth(DType type, int64_t columns) {
  const int widest = static_cast<int>(16 / SizeOf(type));
  return columns % widest == 0 ? widest : 1;
}
// pick<T, kWidth>() for the type and that width: a kernel.
template <class Pick>
auto ForRowsOf(DType type, int64_t columns, Pick pick) {
  const bool wide = RowWidth(type, columns) > 1;
  if (type == DType::kBF16) {
    return wide ? pick.template operator()<BFloat16, 8>() : pick.template operator()<BFloat16, 1>();
  }
  return wide ? pick.template operator()<float, 4>() : pick.template operator()<float, 1>();
}

// Groups for `rows` rows, each of which keeps `kept` bytes (a multiple of 16) in shared memory.
inline bool AreShort(int64_t kept) { return kept <= kShortRowBytes; }
inline LaunchConfig RowLaunch(const char* name, cudaStream_t stream, int64_t rows, int64_t kept) {
  if (AreShort(kept)) {
    constexpr int kRows = kShortRowThreads / kWarp;
    return {name, dim3(DivideUp(rows, kRows)), dim3(kShortRowThreads), static_cast<int>(kRows * kept), stream};
  }
  return {name, dim3(rows), dim3(kLongRowThreads), static_cast<int>(LongRows::kScratchBytes + kept), stream};
}

}  // namespace sluice::cuda
