#include "kernels/cuda/norm.h"
#include "kernels/cuda/row_group.h"

namespace sluice::cuda {
namespace {

// A group's row, [columns] of x -> [columns] of y; it stays in shared memory from its reading on.
template <class T, int kWidth, class Group>
__global__ void NormForwardKernel(NormForwardParams p) {
  const int64_t row = Group::Row();
  if (row >= p.rows) return;
  const T* x = static_cast<const T*>(p.x) + row * p.columns;
  T* y = static_cast<T*>(p.y) + row * p.columns;
  T* kept = reinterpret_cast<T*>(Group::Kept(RowBytes<T>(p.columns)));
  const int first = Group::Thread() * kWidth, step = Group::kThreads * kWidth;
  const float count = static_cast<float>(p.columns);

  Pack<1> sum{};
#pragma unroll 4
  for (int i = first; i < p.columns; i += step) {
    const Pack<kWidth> v = Load<kWidth>(x + i, p.aligned);
    Store(v, kept + i, true);
    for (int j = 0; j < kWidth; ++j) sum[0] += v[j];
  }
  const bool centered = p.mean != nullptr;
  const float mean = centered ? Group::Sum(sum)[0] / count : 0.0f;

  Pack<1> square{};
  for (int i = first; i < p.columns; i += step) {
    const Pack<kWidth> v = Load<kWidth>(kept + i, true);
    for (int j = 0; j < kWidth; ++j) square[0] += (v[j] - mean) * (v[j] - mean);
  }
  const float rstd = 1.0f / sqrtf(Group::Sum(square)[0] / count + p.epsilon);
  if (Group::Thread() == 0) {
    if (centered) p.mean[row] = mean;
    p.rstd[row] = rstd;
  }

  for (int i = first; i < p.columns; i += step) {
    Pack<kWidth> v = Load<kWidth>(kept + i, true);
    const Pack<kWidth> gamma = Load<kWidth>(p.gamma + i, p.aligned);
    const Pack<kWidth> beta = p.beta != nullptr ? Load<kWidth>(p.beta + i, p.aligned) : Pack<kWidth>{};
    for (int j = 0; j < kWidth; ++j) v[j] = (v[j] - mean) * rstd * gamma[j] + beta[j];
    Store(v, y + i, p.aligned);
  }
}

}  // namespace

cudaError_t NormForward(cudaStream_t stream, const NormForwardArgs& args) {
  const int64_t rows = args.x.rows(), columns = args.x.columns();
  if (rows == 0) return cudaSuccess;
  const int64_t kept = RowBytes(args.x.dtype, columns);
  const NormForwardParams params{
      .dtype = args.x.dtype,
      .aligned = Aligned({args.x.data, args.y.data, args.gamma.data, args.beta.data}),
      .epsilon = args.epsilon,
      .rows = rows,
      .columns = static_cast<int>(columns),
      .x = args.x.data,
      .gamma = args.gamma.as<float>(),
      .beta = args.beta.as<float>(),
      .y = args.y.data,
      .mean = args.mean.as<float>(),
      .rstd = args.rstd.as<float>(),
  };
  const auto kernel = ForRowsOf(args.x.dtype, columns, [&]<class T, int kWidth>() {
    return AreShort(kept) ? NormForwardKernel<T, kWidth, ShortRows> : NormForwardKernel<T, kWidth, LongRows>;
  });
  return Launch(kernel, RowLaunch("NormForward", stream, rows, kept), {Of(args.x), Of(args.gamma), Of(args.beta)},
                {Of(args.y), Of(args.mean), Of(args.rstd)}, params);
}

}  // namespace sluice::cuda
