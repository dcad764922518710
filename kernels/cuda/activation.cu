#include "kernels/cuda/activation.h"
#include "kernels/cuda/flat.h"
#include "kernels/operation_check.h"

namespace sluice::cuda {
namespace {

// 0.5 * (1 + tanh(u)) = sigmoid(2u), u = sqrt(2/pi) * (x + 0.044715 x^3), keeps relative accuracy for negative x:
// GELU(x) = x * sigmoid(kLinear * x + kCubic * x^3).
constexpr float kLinear = 1.5957691216057308f;
constexpr float kCubic = 0.07135481627159602f;

// Farther out derivatives are 0 or 1 but for 1e-35, and e^-z would leave the range of f32.
constexpr float kGeluLimit = 9.9f;
constexpr float kSiluLimit = 86.0f;

// Keep a NaN.
__device__ __forceinline__ float Within(float limit, float x) { return x < -limit ? -limit : x > limit ? limit : x; }

// A bf16 result has 8 bits: there the processor's own exponential (an error of some |x| units in the last place of f32)
// and quotient (2 units) do.
template <class T>
__device__ __forceinline__ float Exp(float x) {
  return sizeof(T) == 2 ? __expf(x) : expf(x);
}
template <class T>
__device__ __forceinline__ float Quotient(float a, float b) {
  return sizeof(T) == 2 ? __fdividef(a, b) : a / b;
}

template <class T>
__device__ __forceinline__ float Gelu(float x) {
  const float inner = Within(kGeluLimit, x);
  const float e = Exp<T>(-inner * (kCubic * inner * inner + kLinear));
  return x < -kGeluLimit ? 0.0f : Quotient<T>(x, 1.0f + e);
}

template <class T>
__device__ __forceinline__ float GeluDerivative(float x) {
  x = Within(kGeluLimit, x);
  const float e = Exp<T>(-x * (kCubic * x * x + kLinear));
  const float s = Quotient<T>(1.0f, 1.0f + e), dz = 3 * kCubic * x * x + kLinear;
  return s + x * s * (e * s) * dz;  // s + x s (1 - s) dz
}

template <class T>
__global__ void GeluForwardKernel(GeluParams p) {
  constexpr int kWidth = kPackOf<T>;
  ForFlatPack<T>(p.elements, p.aligned, [&](int64_t i, auto access) {
    Pack<kWidth> v = Load<kWidth>(static_cast<const T*>(p.x) + i, access);
    for (int j = 0; j < kWidth; ++j) v[j] = Gelu<T>(v[j]);
    Store(v, static_cast<T*>(p.y) + i, access);
  });
}

template <class T>
__global__ void GeluBackwardKernel(GeluParams p) {
  constexpr int kWidth = kPackOf<T>;
  ForFlatPack<T>(p.elements, p.aligned, [&](int64_t i, auto access) {
    const Pack<kWidth> x = Load<kWidth>(static_cast<const T*>(p.x) + i, access);
    Pack<kWidth> gradient = Load<kWidth>(static_cast<const T*>(p.dy) + i, access);
    for (int j = 0; j < kWidth; ++j) gradient[j] *= GeluDerivative<T>(x[j]);
    Store(gradient, static_cast<T*>(p.y) + i, access);
  });
}

template <class T, int kWidth>
__global__ void SwigluForwardKernel(SwigluParams p) {
  ForRowPack<kWidth>(p.width, p.aligned, [&](int64_t row, int column, auto access) {
    const T* const gates = static_cast<const T*>(p.gate_up) + row * 2 * p.width + column;
    const Pack<kWidth> gate = Load<kWidth>(gates, access);
    Pack<kWidth> y = Load<kWidth>(gates + p.width, access);
    for (int j = 0; j < kWidth; ++j) {
      const float e = Exp<T>(-Within(kSiluLimit, gate[j]));
      y[j] *= gate[j] < -kSiluLimit ? 0.0f : Quotient<T>(gate[j], 1.0f + e);
    }
    Store(y, static_cast<T*>(p.y) + row * p.width + column, access);
  });
}

template <class T, int kWidth>
__global__ void SwigluBackwardKernel(SwigluParams p) {
  ForRowPack<kWidth>(p.width, p.aligned, [&](int64_t row, int column, auto access) {
    const int64_t offset = row * 2 * p.width + column;
    const T* const gates = static_cast<const T*>(p.gate_up) + offset;
    const Pack<kWidth> gate = Load<kWidth>(gates, access), up = Load<kWidth>(gates + p.width, access);
    const Pack<kWidth> dy = Load<kWidth>(static_cast<const T*>(p.dy) + row * p.width + column, access);
    Pack<kWidth> dgate, dup;
    for (int j = 0; j < kWidth; ++j) {
      const float inner = Within(kSiluLimit, gate[j]), e = Exp<T>(-inner), s = Quotient<T>(1.0f, 1.0f + e);
      dgate[j] = dy[j] * up[j] * (s + inner * s * (e * s));  // s + gate s (1 - s)
      dup[j] = dy[j] * (gate[j] < -kSiluLimit ? 0.0f : gate[j] * s);
    }
    T* const dgates = static_cast<T*>(p.y) + offset;
    Store(dgate, dgates, access);
    Store(dup, dgates + p.width, access);
  });
}

}  // namespace

cudaError_t GeluForward(cudaStream_t stream, const GeluForwardArgs& args) {
  CheckArguments(args);
  const GeluParams params{.dtype = args.x.dtype,
                          .aligned = Aligned({args.x.data, args.y.data}),
                          .elements = args.x.elements(),
                          .x = args.x.data,
                          .dy = nullptr,
                          .y = args.y.data};
  if (params.elements == 0) return cudaSuccess;
  return Launch(args.x.dtype == DType::kBF16 ? GeluForwardKernel<BFloat16> : GeluForwardKernel<float>,
                FlatLaunch("GeluForward", stream, params.dtype, params.elements), {Of(args.x)}, {Of(args.y)}, params);
}

cudaError_t GeluBackward(cudaStream_t stream, const GeluBackwardArgs& args) {
  CheckArguments(args);
  const GeluParams params{.dtype = args.x.dtype,
                          .aligned = Aligned({args.x.data, args.dy.data, args.dx.data}),
                          .elements = args.x.elements(),
                          .x = args.x.data,
                          .dy = args.dy.data,
                          .y = args.dx.data};
  if (params.elements == 0) return cudaSuccess;
  return Launch(args.x.dtype == DType::kBF16 ? GeluBackwardKernel<BFloat16> : GeluBackwardKernel<float>,
                FlatLaunch("GeluBackward", stream, params.dtype, params.elements), {Of(args.x), Of(args.dy)},
                {Of(args.dx)}, params);
}

cudaError_t SwigluForward(cudaStream_t stream, const SwigluForwardArgs& args) {
  const int64_t rows = args.y.rows(), width = args.y.columns();
  CheckArguments(args);
  const SwigluParams params{.dtype = args.y.dtype,
                            .aligned = Aligned({args.gate_up.data, args.y.data}),
                            .width = static_cast<int>(width),
                            .rows = rows,
                            .gate_up = args.gate_up.data,
                            .dy = nullptr,
                            .y = args.y.data};
  if (rows == 0) return cudaSuccess;
  const auto kernel =
      ForRowsOf(params.dtype, width, [&]<class T, int kWidth>() { return &SwigluForwardKernel<T, kWidth>; });
  return Launch(kernel, ChunkLaunch("SwigluForward", stream, params.dtype, rows, width), {Of(args.gate_up)},
                {Of(args.y)}, params);
}

cudaError_t SwigluBackward(cudaStream_t stream, const SwigluBackwardArgs& args) {
  const int64_t rows = args.dy.rows(), width = args.dy.columns();
  CheckArguments(args);
  const SwigluParams params{.dtype = args.dy.dtype,
                            .aligned = Aligned({args.gate_up.data, args.dy.data, args.dgate_up.data}),
                            .width = static_cast<int>(width),
                            .rows = rows,
                            .gate_up = args.gate_up.data,
                            .dy = args.dy.data,
                            .y = args.dgate_up.data};
  if (rows == 0) return cudaSuccess;
  const auto kernel =
      ForRowsOf(params.dtype, width, [&]<class T, int kWidth>() { return &SwigluBackwardKernel<T, kWidth>; });
  return Launch(kernel, ChunkLaunch("SwigluBackward", stream, params.dtype, rows, width),
                {Of(args.gate_up), Of(args.dy)}, {Of(args.dgate_up)}, params);
}

}  // namespace sluice::cuda
