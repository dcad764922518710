#include "kernels/cuda/column_sums.h"
#include "kernels/cuda/row_sums.h"

namespace sluice::cuda {
namespace {

// dy[rows, columns] -> partials[groups, columns]
template <class T, int kWidth>
__global__ void BiasPartialsKernel(BiasPartialsParams p) {
  const T* const dy = static_cast<const T*>(p.dy);
  WithAccess<kWidth>(p.aligned, [&](auto access) {
    SumGroupOfRows<1, kWidth>(p.rows, p.columns, p.partials, [&](int64_t row, int column, Pack<kWidth>* sums) {
      const Pack<kWidth> v = Load<kWidth>(dy + row * p.columns + column, access);
      for (int i = 0; i < kWidth; ++i) sums[0][i] += v[i];
    });
  });
}

// A block has 32 columns; each warp every kSumWarps-th group.
__global__ void SumPartialsKernel(SumPartialsParams p) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int column = static_cast<int>(blockIdx.x) * kWarp + lane;
  float sum = 0;
  if (column < p.partial_columns) {
#pragma unroll 8
    for (int64_t g = warp; g < p.groups; g += kSumWarps) sum += p.partials[g * p.partial_columns + column];
  }
  float* const shared = SharedMemory<float>();  // [warps, 32]
  shared[threadIdx.x] = sum;
  __syncthreads();
  if (warp != 0 || column >= p.partial_columns) return;
  for (int w = 1; w < kSumWarps; ++w) sum += shared[w * kWarp + lane];
  float* const target = column < p.columns ? p.first + column : p.second + (column - p.columns);
  *target = p.accumulate == Accumulate::kAdd ? *target + sum : sum;
}

}  // namespace

cudaError_t SumPartials(cudaStream_t stream, const SumPartialsParams& params) {
  const auto region = [](const float* data, int64_t elements) {
    return Region{data, data == nullptr ? 0 : elements * static_cast<int64_t>(sizeof(float))};
  };
  const Region partials = region(params.partials, params.groups * params.partial_columns);
  const Region first = region(params.first, params.columns), second = region(params.second, params.columns);
  const LaunchConfig config{"SumPartials", dim3(DivideUp(params.partial_columns, kWarp)), dim3(kSumThreads),
                            kSumThreads * static_cast<int>(sizeof(float)), stream};
  if (params.accumulate == Accumulate::kAdd) {
    return Launch(SumPartialsKernel, config, {partials, first, second}, {first, second}, params);
  }
  return Launch(SumPartialsKernel, config, {partials}, {first, second}, params);
}

int64_t BiasGradientWorkspaceBytes(int64_t rows, int64_t columns) {
  return RowGroups(rows) * columns * static_cast<int64_t>(sizeof(float));
}

cudaError_t BiasGradient(cudaStream_t stream, const TensorView& dy, const TensorView& dbias, Accumulate accumulate,
                         const Workspace& workspace) {
  const int64_t rows = dy.rows(), columns = dy.columns(), bytes = BiasGradientWorkspaceBytes(rows, columns);
  CHECK_GE(workspace.bytes, bytes);
  const BiasPartialsParams params{
      .dtype = dy.dtype,
      .aligned = Aligned({dy.data}),
      .columns = static_cast<int>(columns),
      .rows = rows,
      .dy = dy.data,
      .partials = reinterpret_cast<float*>(workspace.data),
  };
  if (rows > 0) {
    const auto kernel =
        ForRowsOf(dy.dtype, columns, [&]<class T, int kWidth>() { return &BiasPartialsKernel<T, kWidth>; });
    const LaunchConfig config = SumLaunch("BiasPartials", stream, dy.dtype, rows, columns, 1);
    const cudaError_t error = Launch(kernel, config, {Of(dy)}, {Region{workspace.data, bytes}}, params);
    if (error != cudaSuccess) return error;
  }
  return SumPartials(stream, {.accumulate = accumulate,
                              .columns = params.columns,
                              .partial_columns = params.columns,
                              .groups = RowGroups(rows),
                              .partials = params.partials,
                              .first = dbias.as<float>(),
                              .second = nullptr});
}

}  // namespace sluice::cuda
