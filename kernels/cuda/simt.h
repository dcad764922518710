// Device side: one wrapper for each feature of the hardware that plain CUDA C++ has no word for. Each has a real body
// and one on the simulated GPU (tests/gpu_sim); kernels never know.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "cuda_runtime.h"

namespace sluice::cuda {

// The block's dynamic shared memory, 128-byte aligned. Kernels have no other.
template <class T>
__device__ __forceinline__ T* SharedMemory() {
#ifdef __CUDACC__
  extern __shared__ __align__(128) unsigned char shared_memory[];
  return reinterpret_cast<T*>(shared_memory);
#else
  return static_cast<T*>(gpu_sim::SharedMemory());
#endif
}

// The same number, of which the compiler knows nothing: what is computed from it is computed here, and not before a loop,
// where it would occupy registers.
__device__ __forceinline__ int Opaque(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

// 16 bytes at once. REQUIRES: the address is a multiple of 16.
__device__ __forceinline__ uint4 Load128(const void* from) {
#ifdef __CUDACC__
  return *static_cast<const uint4*>(from);
#else
  return gpu_sim::Load128(from);
#endif
}
__device__ __forceinline__ void Store128(void* to, uint4 value) {
#ifdef __CUDACC__
  *static_cast<uint4*>(to) = value;
#else
  gpu_sim::Store128(to, value);
#endif
}

#ifdef __CUDACC__
// An address in shared memory as the instructions for it take it.
__device__ __forceinline__ uint32_t SharedAddress(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}
#endif

// Starts a copy of 16 bytes from global to shared memory, both multiples of 16. Without `there` the 16 bytes become 0
// and global memory isn't read. They may be read by this thread after its WaitAsync, by others after a barrier that
// follows.
__device__ __forceinline__ void CopyAsync16(void* shared, const void* global, bool there = true) {
#ifdef __CUDACC__
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(SharedAddress(shared)), "l"(global),
               "r"(there ? 16 : 0)
               : "memory");
#else
  gpu_sim::CopyAsync(shared, global, there ? 16 : 0);
#endif
}
// The copies that this thread started since its last CommitAsync are one group.
__device__ __forceinline__ void CommitAsync() {
#ifdef __CUDACC__
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  gpu_sim::CommitAsync();
#endif
}
// Waits until at most kPending of this thread's groups, the latest, are still on their way.
template <int kPending>
__device__ __forceinline__ void WaitAsync() {
#ifdef __CUDACC__
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#else
  gpu_sim::WaitAsync(kPending);
#endif
}

// Fragments of 8x8 matrices of 16-bit elements from shared memory, by a whole warp: lane 8i+r gives the address of row
// r of matrix i (16 bytes, a multiple of 16). Of each matrix lane l gets the elements (l/4, 2(l%4)) and (l/4,
// 2(l%4)+1), the second in the upper half; transposed, (2(l%4), l/4) and (2(l%4)+1, l/4).
enum class MatrixOrder { kPlain, kTransposed };
template <MatrixOrder kOrder = MatrixOrder::kPlain>
__device__ __forceinline__ void LoadMatrix(const void* row, uint32_t (&fragment)[4]) {
#ifdef __CUDACC__
  if constexpr (kOrder == MatrixOrder::kPlain) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
                 : "r"(SharedAddress(row))
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(fragment[0]), "=r"(fragment[1]), "=r"(fragment[2]), "=r"(fragment[3])
                 : "r"(SharedAddress(row))
                 : "memory");
  }
#else
  gpu_sim::LoadMatrix(4, kOrder == MatrixOrder::kTransposed, row, fragment);
#endif
}
// Two matrices: lanes 0 to 15 give the rows.
template <MatrixOrder kOrder = MatrixOrder::kPlain>
__device__ __forceinline__ void LoadMatrix(const void* row, uint32_t (&fragment)[2]) {
#ifdef __CUDACC__
  if constexpr (kOrder == MatrixOrder::kPlain) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(fragment[0]), "=r"(fragment[1])
                 : "r"(SharedAddress(row))
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(fragment[0]), "=r"(fragment[1])
                 : "r"(SharedAddress(row))
                 : "memory");
  }
#else
  gpu_sim::LoadMatrix(2, kOrder == MatrixOrder::kTransposed, row, fragment);
#endif
}

// d[16x8] += a[16x16] * b[16x8] by a whole warp, bf16 products added in f32. With g = lane/4 and t = lane%4, and pairs
// of neighbours along k with the lower one in the lower half:
//   a[0] (g, 2t)  a[1] (g+8, 2t)  a[2] (g, 2t+8)  a[3] (g+8, 2t+8);   b[0] (k 2t, n g)  b[1] (k 2t+8, n g)
//   d[0] (g, 2t)  d[1] (g, 2t+1)  d[2] (g+8, 2t)  d[3] (g+8, 2t+1)
__device__ __forceinline__ void MmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifdef __CUDACC__
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  gpu_sim::MmaBf16(d, a, b);
#endif
}

// 2^x to about two units in the last place; a result below the normal numbers is 0.
__device__ __forceinline__ float Exp2(float x) {
#ifdef __CUDACC__
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#else
  const float result = std::exp2(x);
  return result < std::numeric_limits<float>::min() ? 0.0f : result;
#endif
}

// Both rounded to nearest even; `low` in the lower half. A NaN becomes 0x7fff.
__device__ __forceinline__ uint32_t PackBf16x2(float low, float high) {
#ifdef __CUDACC__
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
#else
  const auto round = [](float value) -> uint32_t {
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    return value != value ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  };
  return round(low) | round(high) << 16;
#endif
}

}  // namespace sluice::cuda
