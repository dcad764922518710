// The toolkit in miniature: what CUDA C++ offers inside a kernel. Each name does what the CUDA programming guide says
// of it; what crosses threads is a call into the simulator (kernel_run.h), which also checks it.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "vector_types.h"

namespace gpu_sim {

// Of the CUDA thread that runs. `const`: a thread keeps its index, so one look per function is enough.
__attribute__((const)) uint3 ThreadIndex();
__attribute__((const)) uint3 BlockIndex();
__attribute__((const)) dim3 BlockSize();
__attribute__((const)) dim3 GridSize();
// The block's dynamic shared memory.
__attribute__((const)) void* SharedMemory();

// A block's barrier: how many threads came with a predicate that isn't 0.
int SyncThreads(int predicate);
void SyncWarp(unsigned mask);

enum class ShuffleKind { kIndex, kUp, kDown, kXor };
uint64_t Shuffle(ShuffleKind kind, unsigned mask, uint64_t bits, int operand, int width);
// The lanes of the mask whose predicate isn't 0.
unsigned Ballot(unsigned mask, int predicate);
// The lanes of the mask that came with the same bits.
unsigned MatchAny(unsigned mask, uint64_t bits);

// 16 bytes at an address that must be a multiple of 16.
uint4 Load128(const void* from);
void Store128(void* to, uint4 value);
// Before an atomic operation on *p.
void CheckAtomic(void* p, int bytes);

// cp.async of 16 bytes, of which the first `bytes` are read, the others 0; they land in WaitAsync.
void CopyAsync(void* shared, const void* global, int bytes);
void CommitAsync();
// Until at most `pending` of the thread's committed groups are on their way.
void WaitAsync(int pending);

// ldmatrix of 1, 2 or 4 matrices.
void LoadMatrix(int matrices, bool transposed, const void* row, uint32_t* fragment);
// mma.sync.m16n8k16 row.col f32.bf16.bf16.f32: d += a * b.
void MmaBf16(float* d, const uint32_t* a, const uint32_t* b);

template <class T>
__forceinline__ uint64_t ToBits(T value) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles are of 4 or 8 bytes");
  if constexpr (sizeof(T) == 4) {
    return std::bit_cast<uint32_t>(value);
  } else {
    return std::bit_cast<uint64_t>(value);
  }
}
template <class T>
__forceinline__ T FromBits(uint64_t bits) {
  if constexpr (sizeof(T) == 4) {
    return std::bit_cast<T>(static_cast<uint32_t>(bits));
  } else {
    return std::bit_cast<T>(bits);
  }
}
template <class T>
__forceinline__ T ShuffleOf(ShuffleKind kind, unsigned mask, T value, int operand, int width) {
  return FromBits<T>(Shuffle(kind, mask, ToBits(value), operand, width));
}

// Unseen by the checks, which CheckAtomic has made. One fiber runs at a time, so this is atomic.
template <class T, class Update>
__attribute__((no_sanitize("thread"), noinline)) T UpdateUnseen(T* p, Update update) {
  const T old = *p;
  *p = update(old);
  return old;
}
template <class T, class Update>
__forceinline__ T Atomic(T* p, Update update) {
  CheckAtomic(p, sizeof(T));
  return UpdateUnseen(p, update);
}

}  // namespace gpu_sim

#define threadIdx (::gpu_sim::ThreadIndex())
#define blockIdx (::gpu_sim::BlockIndex())
#define blockDim (::gpu_sim::BlockSize())
#define gridDim (::gpu_sim::GridSize())
inline constexpr int warpSize = 32;

// Barriers and fences. Within a launch no other fence orders blocks: their order isn't defined, so it would be a race.
__forceinline__ void __syncthreads() { gpu_sim::SyncThreads(0); }
__forceinline__ int __syncthreads_count(int predicate) { return gpu_sim::SyncThreads(predicate != 0); }
__forceinline__ int __syncthreads_or(int predicate) { return gpu_sim::SyncThreads(predicate != 0) != 0; }
__forceinline__ int __syncthreads_and(int predicate) { return gpu_sim::SyncThreads(predicate == 0) == 0; }
__forceinline__ void __syncwarp(unsigned mask = 0xffffffffu) { gpu_sim::SyncWarp(mask); }

// Shuffles and votes.
template <class T>
__forceinline__ T __shfl_sync(unsigned mask, T value, int lane, int width = warpSize) {
  return gpu_sim::ShuffleOf(gpu_sim::ShuffleKind::kIndex, mask, value, lane, width);
}
template <class T>
__forceinline__ T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = warpSize) {
  return gpu_sim::ShuffleOf(gpu_sim::ShuffleKind::kUp, mask, value, static_cast<int>(distance), width);
}
template <class T>
__forceinline__ T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = warpSize) {
  return gpu_sim::ShuffleOf(gpu_sim::ShuffleKind::kDown, mask, value, static_cast<int>(distance), width);
}
template <class T>
__forceinline__ T __shfl_xor_sync(unsigned mask, T value, int distance, int width = warpSize) {
  return gpu_sim::ShuffleOf(gpu_sim::ShuffleKind::kXor, mask, value, distance, width);
}
__forceinline__ unsigned __ballot_sync(unsigned mask, int predicate) { return gpu_sim::Ballot(mask, predicate); }
__forceinline__ int __any_sync(unsigned mask, int predicate) { return gpu_sim::Ballot(mask, predicate) != 0; }
__forceinline__ int __all_sync(unsigned mask, int predicate) { return gpu_sim::Ballot(mask, predicate) == mask; }
template <class T>
__forceinline__ unsigned __match_any_sync(unsigned mask, T value) {
  return gpu_sim::MatchAny(mask, gpu_sim::ToBits(value));
}

// Atomics.
template <class T>
__forceinline__ T atomicAdd(T* p, T value) {
  return gpu_sim::Atomic(p, [=](T old) { return static_cast<T>(old + value); });
}
template <class T>
__forceinline__ T atomicMin(T* p, T value) {
  return gpu_sim::Atomic(p, [=](T old) { return value < old ? value : old; });
}
template <class T>
__forceinline__ T atomicMax(T* p, T value) {
  return gpu_sim::Atomic(p, [=](T old) { return old < value ? value : old; });
}
template <class T>
__forceinline__ T atomicAnd(T* p, T value) {
  return gpu_sim::Atomic(p, [=](T old) { return old & value; });
}
template <class T>
__forceinline__ T atomicOr(T* p, T value) {
  return gpu_sim::Atomic(p, [=](T old) { return old | value; });
}
template <class T>
__forceinline__ T atomicExch(T* p, T value) {
  return gpu_sim::Atomic(p, [=](T) { return value; });
}
template <class T>
__forceinline__ T atomicCAS(T* p, T expected, T value) {
  return gpu_sim::Atomic(p, [=](T old) { return old == expected ? value : old; });
}

// Loads and stores with a hint for the caches.
template <class T>
__forceinline__ T __ldg(const T* p) {
  return *p;
}
template <class T>
__forceinline__ T __ldcs(const T* p) {
  return *p;
}
template <class T>
__forceinline__ T __ldcg(const T* p) {
  return *p;
}
template <class T>
__forceinline__ void __stcs(T* p, T value) {
  *p = value;
}
template <class T>
__forceinline__ void __stcg(T* p, T value) {
  *p = value;
}

// The smaller and the larger of two, of each arithmetic type.
#define GPU_SIM_MIN_MAX(type)                                                  \
  __forceinline__ constexpr type min(type x, type y) { return y < x ? y : x; } \
  __forceinline__ constexpr type max(type x, type y) { return x < y ? y : x; }
GPU_SIM_MIN_MAX(int)
GPU_SIM_MIN_MAX(unsigned)
GPU_SIM_MIN_MAX(long)
GPU_SIM_MIN_MAX(unsigned long)
GPU_SIM_MIN_MAX(long long)
GPU_SIM_MIN_MAX(unsigned long long)
GPU_SIM_MIN_MAX(float)
GPU_SIM_MIN_MAX(double)
#undef GPU_SIM_MIN_MAX

// Arithmetic. The fast forms are exact here, as the hardware's may be.
__forceinline__ float __expf(float x) { return std::exp(x); }
__forceinline__ float __exp10f(float x) { return std::pow(10.0f, x); }
__forceinline__ float __logf(float x) { return std::log(x); }
__forceinline__ float __log2f(float x) { return std::log2(x); }
__forceinline__ float __sinf(float x) { return std::sin(x); }
__forceinline__ float __cosf(float x) { return std::cos(x); }
__forceinline__ float __fdividef(float x, float y) { return x / y; }
__forceinline__ float __frcp_rn(float x) { return 1.0f / x; }
__forceinline__ float __fsqrt_rn(float x) { return std::sqrt(x); }
__forceinline__ float __fadd_rn(float x, float y) { return x + y; }
__forceinline__ float __fsub_rn(float x, float y) { return x - y; }
__forceinline__ float __fmul_rn(float x, float y) { return x * y; }
__forceinline__ float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
__forceinline__ float __fdiv_rn(float x, float y) { return x / y; }
__forceinline__ double __dadd_rn(double x, double y) { return x + y; }
__forceinline__ double __dmul_rn(double x, double y) { return x * y; }
__forceinline__ float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
__forceinline__ float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
__forceinline__ double rsqrt(double x) { return 1.0 / std::sqrt(x); }
__forceinline__ unsigned __umulhi(unsigned x, unsigned y) { return static_cast<unsigned>(uint64_t{x} * y >> 32); }
__forceinline__ int __popc(unsigned x) { return std::popcount(x); }
__forceinline__ int __popcll(unsigned long long x) { return std::popcount(x); }
__forceinline__ int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
__forceinline__ int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
__forceinline__ float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
__forceinline__ float __int_as_float(int x) { return std::bit_cast<float>(x); }
__forceinline__ unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
__forceinline__ int __float_as_int(float x) { return std::bit_cast<int>(x); }
