#include "kernels/cuda/column_sums.h"
#include "kernels/cuda/norm.h"
#include "kernels/cuda/row_group.h"
#include "kernels/cuda/row_sums.h"
#include "kernels/operation_check.h"

namespace sluice::cuda {
namespace {

// Starts bringing a group's row into shared memory; each thread will read what it has fetched itself, after AwaitRows.
template <int kWidth, class Group, class T>
__device__ __forceinline__ void FetchRow(const T* row, T* kept, int columns, Wide) {
  for (int i = Group::Thread() * kWidth; i < columns; i += Group::kThreads * kWidth) CopyAsync16(kept + i, row + i);
  CommitAsync();
}
template <int kWidth, class Group, class T>
__device__ __forceinline__ void FetchRow(const T* row, T* kept, int columns, Narrow) {
  for (int i = Group::Thread() * kWidth; i < columns; i += Group::kThreads * kWidth) {
    for (int j = 0; j < kWidth; ++j) kept[i + j] = row[i + j];
  }
}
__device__ __forceinline__ void AwaitRows(Wide) { WaitAsync<0>(); }
__device__ __forceinline__ void AwaitRows(Narrow) {}

// A row's [columns] of x -> [columns] of y. It stays in shared memory from its reading on.
template <class T, int kWidth, class Group, class Access>
__device__ __forceinline__ void NormRow(const NormForwardParams& p, int64_t row, Access access) {
  T* const y = static_cast<T*>(p.y) + row * p.columns;
  T* const x = reinterpret_cast<T*>(Group::Kept(RowBytes<T>(p.columns)));
  const int first = Group::Thread() * kWidth, step = Group::kThreads * kWidth;
  const float count = static_cast<float>(p.columns);
  const auto own = OwnAccess<kWidth>();
  FetchRow<kWidth, Group>(static_cast<const T*>(p.x) + row * p.columns, x, p.columns, access);
  AwaitRows(access);

  const bool centered = p.mean != nullptr;
  float mean = 0;
  if (centered) {
    Pack<1> sum{};
    for (int i = first; i < p.columns; i += step) {
      const Pack<kWidth> v = Load<kWidth>(x + i, own);
      for (int j = 0; j < kWidth; ++j) sum[0] += v[j];
    }
    mean = Group::Sum(sum, 0)[0] / count;
  }
  Pack<1> square{};
  for (int i = first; i < p.columns; i += step) {
    const Pack<kWidth> v = Load<kWidth>(x + i, own);
    for (int j = 0; j < kWidth; ++j) square[0] += (v[j] - mean) * (v[j] - mean);
  }
  const float rstd = 1.0f / sqrtf(Group::Sum(square, 1)[0] / count + p.epsilon);
  if (Group::Thread() == 0) {
    if (centered) p.mean[row] = mean;
    p.rstd[row] = rstd;
  }

  for (int i = first; i < p.columns; i += step) {
    Pack<kWidth> v = Load<kWidth>(x + i, own);
    const Pack<kWidth> gamma = Load<kWidth>(p.gamma + i, access);
    const Pack<kWidth> beta = p.beta != nullptr ? Load<kWidth>(p.beta + i, access) : Pack<kWidth>{};
    for (int j = 0; j < kWidth; ++j) v[j] = (v[j] - mean) * rstd * gamma[j] + beta[j];
    Store(v, y + i, access);
  }
}

template <class T, int kWidth, class Group>
__global__ void NormForwardKernel(NormForwardParams p) {
  const int64_t row = Group::Row();
  if (row >= p.rows) return;
  WithAccess<kWidth>(p.aligned, [&](auto access) { NormRow<T, kWidth, Group>(p, row, access); });
}

// With n = (x - mean) * rstd and g = dy * gamma: dx = rstd * (g - average(g) - n * average(g * n)) + add, for RMSNorm
// without mean and average(g).
template <class T, int kWidth, class Group, class Access>
__device__ __forceinline__ void NormInputGradientRow(const NormInputGradientParams& p, int64_t row, Access access) {
  const int64_t offset = row * p.columns;
  const T* const add = p.add != nullptr ? static_cast<const T*>(p.add) + offset : nullptr;
  T* const dx = static_cast<T*>(p.dx) + offset;
  T* const x = reinterpret_cast<T*>(Group::Kept(2 * RowBytes<T>(p.columns)));
  T* const dy = x + RowBytes<T>(p.columns) / static_cast<int>(sizeof(T));
  const int first = Group::Thread() * kWidth, step = Group::kThreads * kWidth;
  const float count = static_cast<float>(p.columns);
  const auto own = OwnAccess<kWidth>();
  FetchRow<kWidth, Group>(static_cast<const T*>(p.x) + offset, x, p.columns, access);
  FetchRow<kWidth, Group>(static_cast<const T*>(p.dy) + offset, dy, p.columns, access);
  const bool centered = p.mean != nullptr;
  const float mean = centered ? p.mean[row] : 0.0f, rstd = p.rstd[row];
  AwaitRows(access);

  Pack<2> sums{};  // of g, of g * n
  for (int i = first; i < p.columns; i += step) {
    const Pack<kWidth> v = Load<kWidth>(x + i, own), gradient = Load<kWidth>(dy + i, own);
    const Pack<kWidth> gamma = Load<kWidth>(p.gamma + i, access);
    for (int j = 0; j < kWidth; ++j) {
      const float g = gradient[j] * gamma[j];
      sums[0] += g;
      sums[1] += g * ((v[j] - mean) * rstd);
    }
  }
  sums = Group::Sum(sums, 0);
  const float average = centered ? sums[0] / count : 0.0f, slope = sums[1] / count;

  for (int i = first; i < p.columns; i += step) {
    const Pack<kWidth> v = Load<kWidth>(x + i, own), gradient = Load<kWidth>(dy + i, own);
    const Pack<kWidth> gamma = Load<kWidth>(p.gamma + i, access);
    Pack<kWidth> result = add != nullptr ? Load<kWidth>(add + i, access) : Pack<kWidth>{};
    for (int j = 0; j < kWidth; ++j) {
      result[j] += rstd * (gradient[j] * gamma[j] - average - (v[j] - mean) * rstd * slope);
    }
    Store(result, dx + i, access);
  }
}

template <class T, int kWidth, class Group>
__global__ void NormInputGradientKernel(NormInputGradientParams p) {
  const int64_t row = Group::Row();
  if (row >= p.rows) return;
  WithAccess<kWidth>(p.aligned, [&](auto access) { NormInputGradientRow<T, kWidth, Group>(p, row, access); });
}

// dy, x [rows, columns] -> partials[groups, kOutputs, columns]
template <class T, int kWidth, int kOutputs>
__global__ void NormWeightPartialsKernel(NormWeightPartialsParams p) {
  const T* const dys = static_cast<const T*>(p.dy);
  const T* const xs = static_cast<const T*>(p.x);
  WithAccess<kWidth>(p.aligned, [&](auto access) {
    SumGroupOfRows<kOutputs, kWidth>(p.rows, p.columns, p.partials, [&](int64_t row, int column, Pack<kWidth>* sums) {
      const int64_t offset = row * p.columns + column;
      const Pack<kWidth> dy = Load<kWidth>(dys + offset, access), x = Load<kWidth>(xs + offset, access);
      const float mean = kOutputs == 2 ? p.mean[row] : 0.0f, rstd = p.rstd[row];
      for (int j = 0; j < kWidth; ++j) {
        sums[0][j] += dy[j] * ((x[j] - mean) * rstd);
        if (kOutputs == 2) sums[kOutputs - 1][j] += dy[j];
      }
    });
  });
}

constexpr int64_t kRowBytesMax = 80 * 1024;

}  // namespace

cudaError_t NormForward(cudaStream_t stream, const NormForwardArgs& args) {
  CheckArguments(args);
  const int64_t rows = args.x.rows(), columns = args.x.columns();
  CHECK_LE(columns * SizeOf(args.x.dtype), kRowBytesMax);
  if (rows == 0) return cudaSuccess;
  const int64_t kept = RowBytes(args.x.dtype, columns);
  const NormForwardParams params{
      .dtype = args.x.dtype,
      .aligned = Aligned({args.x.data, args.y.data, args.gamma.data, args.beta.data}),
      .epsilon = args.epsilon,
      .columns = static_cast<int>(columns),
      .rows = rows,
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

cudaError_t NormInputGradient(cudaStream_t stream, const NormInputGradientArgs& args) {
  CheckArguments(args);
  const int64_t rows = args.x.rows(), columns = args.x.columns();
  CHECK_LE(columns * SizeOf(args.x.dtype), kRowBytesMax);
  if (rows == 0) return cudaSuccess;
  const int64_t kept = 2 * RowBytes(args.x.dtype, columns);
  const NormInputGradientParams params{
      .dtype = args.x.dtype,
      .aligned = Aligned({args.dy.data, args.x.data, args.gamma.data, args.add.data, args.dx.data}),
      .columns = static_cast<int>(columns),
      .rows = rows,
      .dy = args.dy.data,
      .x = args.x.data,
      .gamma = args.gamma.as<float>(),
      .mean = args.mean.as<float>(),
      .rstd = args.rstd.as<float>(),
      .add = args.add.data,
      .dx = args.dx.data,
  };
  const auto kernel = ForRowsOf(args.x.dtype, columns, [&]<class T, int kWidth>() {
    return AreShort(kept) ? NormInputGradientKernel<T, kWidth, ShortRows>
                          : NormInputGradientKernel<T, kWidth, LongRows>;
  });
  return Launch(kernel, RowLaunch("NormInputGradient", stream, rows, kept),
                {Of(args.dy), Of(args.x), Of(args.gamma), Of(args.mean), Of(args.rstd), Of(args.add)}, {Of(args.dx)},
                params);
}

int64_t NormWeightGradientWorkspaceBytes(int64_t rows, int64_t columns) {
  return RowGroups(rows) * 2 * columns * static_cast<int64_t>(sizeof(float));
}

cudaError_t NormWeightGradient(cudaStream_t stream, const NormWeightGradientArgs& args, const Workspace& workspace) {
  CheckArguments(args);
  const int64_t rows = args.x.rows(), columns = args.x.columns(), groups = RowGroups(rows);
  const int outputs = args.kind == NormKind::kLayerNorm ? 2 : 1;
  const Region partials{workspace.data, groups * outputs * columns * static_cast<int64_t>(sizeof(float))};
  CHECK_GE(workspace.bytes, partials.bytes);
  const NormWeightPartialsParams params{
      .dtype = args.x.dtype,
      .aligned = Aligned({args.dy.data, args.x.data}),
      .columns = static_cast<int>(columns),
      .rows = rows,
      .dy = args.dy.data,
      .x = args.x.data,
      .mean = args.mean.as<float>(),
      .rstd = args.rstd.as<float>(),
      .partials = reinterpret_cast<float*>(workspace.data),
  };
  if (rows > 0) {
    const auto kernel = ForRowsOf(args.x.dtype, columns, [&]<class T, int kWidth>() {
      return outputs == 2 ? NormWeightPartialsKernel<T, kWidth, 2> : NormWeightPartialsKernel<T, kWidth, 1>;
    });
    const LaunchConfig config = SumLaunch("NormWeightPartials", stream, args.x.dtype, rows, columns, outputs);
    const cudaError_t error =
        Launch(kernel, config, {Of(args.dy), Of(args.x), Of(args.mean), Of(args.rstd)}, {partials}, params);
    if (error != cudaSuccess) return error;
  }
  return SumPartials(stream, {.accumulate = args.accumulate,
                              .columns = params.columns,
                              .partial_columns = outputs * params.columns,
                              .groups = groups,
                              .partials = params.partials,
                              .first = args.dgamma.as<float>(),
                              .second = args.dbeta.as<float>()});
}

}  // namespace sluice::cuda
