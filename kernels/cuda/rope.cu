#include "kernels/cuda/flat.h"
#include "kernels/cuda/rope.h"
#include "kernels/operation_check.h"

namespace sluice::cuda {
namespace {

constexpr double kTwoOverPi = 0.63661977236758134308;
constexpr double kPiOverTwo = 1.57079632679489661923;
constexpr int64_t kHeadSizeMax = 1024;

// Sine and cosine of |r| <= pi/4 within 2 units in the last place: polynomials of Cephes' sinf and cosf (Moshier).
__device__ __forceinline__ float SinNearZero(float r) {
  const float r2 = r * r;
  const float p = fmaf(fmaf(-1.9515295891e-4f, r2, 8.3321608736e-3f), r2, -1.6666654611e-1f);
  return fmaf(p * r2, r, r);
}
__device__ __forceinline__ float CosNearZero(float r) {
  const float r2 = r * r;
  const float p = fmaf(fmaf(2.443315711809948e-5f, r2, -1.388731625493765e-3f), r2, 4.166664568298827e-2f);
  return fmaf(p * r2, r2, fmaf(-0.5f, r2, 1.0f));
}

// angle = quarter * pi/2 + rest.
__device__ __forceinline__ void SinCos(double angle, float* sine, float* cosine) {
  const double turns = rint(angle * kTwoOverPi);
  const float rest = static_cast<float>(fma(-turns, kPiOverTwo, angle));
  const int quarter = static_cast<int>(static_cast<int64_t>(turns) & 3);
  const float s = SinNearZero(rest), c = CosNearZero(rest);
  const float swapped_sine = quarter % 2 == 1 ? c : s, swapped_cosine = quarter % 2 == 1 ? s : c;
  *sine = quarter >= 2 ? -swapped_sine : swapped_sine;
  *cosine = quarter == 1 || quarter == 2 ? -swapped_cosine : swapped_cosine;
}

// A block has a token: sines and cosines once, then all of its query and key heads, a pair of packs (i, i + D/2) for
// each thread.
template <class T, int kWidth>
__global__ void RopeKernel(RopeParams p) {
  const int64_t row = blockIdx.x;
  const int half = p.head_size / 2;
  float* const sines = SharedMemory<float>();
  float* const cosines = sines + RowBytes<float>(half) / static_cast<int>(sizeof(float));
  // The sine of the inverse rotation is that of minus the position.
  const double position = p.direction == Direction::kInverse ? -p.positions[row] : p.positions[row];
  const double log_theta = log2(double{p.theta});
  for (int i = threadIdx.x; i < half; i += kChunkThreads) {
    SinCos(position * ScaledFrequency(exp2(-log_theta * i / half), p.scaling), sines + i, cosines + i);
  }
  __syncthreads();

  T* const token = static_cast<T*>(p.qkv) + row * p.columns;
  const int packs = half / kWidth;  // of half a head
  WithAccess<kWidth>(p.aligned, [&](auto access) {
    for (int item = threadIdx.x; item < p.rotated_heads * packs; item += kChunkThreads) {
      const int i = item % packs * kWidth;
      T* const head = token + item / packs * p.head_size + i;
      const Pack<kWidth> first = Load<kWidth>(head, access), second = Load<kWidth>(head + half, access);
      Pack<kWidth> a, b;
      for (int j = 0; j < kWidth; ++j) {
        const float sine = sines[i + j], cosine = cosines[i + j];
        a[j] = fmaf(-second[j], sine, first[j] * cosine);
        b[j] = fmaf(first[j], sine, second[j] * cosine);
      }
      Store(a, head, access);
      Store(b, head + half, access);
    }
  });
}

}  // namespace

cudaError_t Rope(cudaStream_t stream, const RopeArgs& args) {
  const AttentionShape& shape = args.shape;
  const int64_t rows = shape.rows * shape.sequence, half = shape.head_size / 2, rotated = shape.heads + shape.kv_heads;
  CheckArguments(args);
  CHECK_LE(shape.head_size, kHeadSizeMax);
  if (rows == 0) return cudaSuccess;
  const RopeParams params{.dtype = args.qkv.dtype,
                          .aligned = Aligned({args.qkv.data}),
                          .direction = args.direction,
                          .theta = args.theta,
                          .scaling = args.scaling,
                          .head_size = static_cast<int>(shape.head_size),
                          .rotated_heads = static_cast<int>(rotated),
                          .columns = static_cast<int>(args.qkv.columns()),
                          .rows = rows,
                          .qkv = args.qkv.data,
                          .positions = args.positions.as<int32_t>()};
  const Region heads{args.qkv.data, rotated * shape.head_size * SizeOf(params.dtype), rows,
                     params.columns * SizeOf(params.dtype)};
  const auto kernel = ForRowsOf(params.dtype, half, [&]<class T, int kWidth>() { return &RopeKernel<T, kWidth>; });
  const int shared = static_cast<int>(2 * RowBytes(DType::kF32, half));
  return Launch(kernel, {"Rope", dim3(rows), dim3(kChunkThreads), shared, stream}, {heads, Of(args.positions)}, {heads},
                params);
}

}  // namespace sluice::cuda
