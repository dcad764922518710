#include <cmath>
#include <limits>

#include "kernels/cuda/cross_entropy.h"
#include "kernels/cuda/ordered_sum.h"
#include "kernels/operation_check.h"

namespace sluice::cuda {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Of a token's statistics, one part of the logits after the other.
constexpr int kStatistics = 3;
enum Statistic { kMaximum, kSum, kTargetLogit };

// Threads of a row: few for a short one, since the row is a block's only work. Of 1024 threads a multiprocessor has one
// block, so that the rows in work (26 MB of 50,257 columns on 132 multiprocessors) stay in the second-level cache from
// their first pass to the second.
constexpr int kLongRowColumns = 8192;
int ThreadsOf(int64_t columns) { return columns >= kLongRowColumns ? 1024 : 128; }
constexpr int kScratchFloats = 64;

// The sum of some logits' exponentials is sum * e^maximum.
struct ExponentialSum {
  float maximum = -kInfinity;
  float sum = 0;
};

// e^(x - maximum), also where both are -infinity.
__device__ __forceinline__ float ScaleTo(float maximum, float x) { return x == maximum ? 1.0f : expf(x - maximum); }

// Of the packs of a row that are this thread's. Some logits are fetched at once and added under one maximum.
template <int kWidth, class Access>
__device__ __forceinline__ ExponentialSum SumOfThread(const float* logits, int columns, Access access) {
  constexpr int kPacks = 8 / kWidth;
  const int step = static_cast<int>(blockDim.x) * kWidth;
  ExponentialSum all;
  for (int first = threadIdx.x * kWidth; first < columns; first += kPacks * step) {
    Pack<kWidth> packs[kPacks];
    float maximum = all.maximum;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      for (int j = 0; j < kWidth; ++j) packs[k][j] = -kInfinity;
      if (first + k * step < columns) packs[k] = Load<kWidth>(logits + first + k * step, access);
    }
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      for (int j = 0; j < kWidth; ++j) maximum = fmaxf(maximum, packs[k][j]);
    }
    const float shift = maximum == -kInfinity ? 0.0f : maximum;
    float sum = all.sum * ScaleTo(maximum, all.maximum);
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      for (int j = 0; j < kWidth; ++j) sum += expf(packs[k][j] - shift);
    }
    all = {maximum, sum};
  }
  return all;
}

// Every thread of the block gets it.
template <int kWidth>
__device__ ExponentialSum SumExponentials(const float* logits, int columns, bool aligned) {
  float* const scratch = SharedMemory<float>();
  ExponentialSum mine;
  WithAccess<kWidth>(aligned, [&](auto access) { mine = SumOfThread<kWidth>(logits, columns, access); });
  const float maximum = MaximumOverBlock(mine.maximum, scratch);
  const Pack<1> sum{{mine.sum * ScaleTo(maximum, mine.maximum)}};
  return {maximum, SumOverBlock(sum, scratch + kScratchFloats / 2)[0]};
}

// Log of the sum of all parts' exponentials, from what the parts tell of a row. The target's logit is 0 in all but one.
__device__ double JoinStatistics(const CrossEntropyParams& p, int64_t row, float* target_logit) {
  const float* const first = p.statistics + row * kStatistics;
  const int64_t part_elements = p.rows * kStatistics;
  double maximum = first[kMaximum], sum = 0;
  *target_logit = 0;
  for (int part = 0; part < p.parts; ++part) maximum = fmax(maximum, double{first[part * part_elements + kMaximum]});
  for (int part = 0; part < p.parts; ++part) {
    const float* const mine = first + part * part_elements;
    sum += mine[kSum] * exp(mine[kMaximum] - maximum);
    *target_logit += mine[kTargetLogit];
  }
  return maximum + log(sum);
}

// What the second pass needs to know of a row.
struct RowGradient {
  float lse;
  float target_gradient;
  int target;  // column; -1: of another part of the logits
};

// The first thread writes the row's loss. p - 1 is taken without cancellation, before dlogits may overwrite the logit.
template <int kWidth>
__device__ RowGradient RowLoss(const CrossEntropyParams& p, int64_t row, int32_t target, const float* logits) {
  ExponentialSum all;
  if (p.statistics == nullptr) all = SumExponentials<kWidth>(logits, p.columns, p.aligned);
  const int64_t column = target - p.first_column;
  const bool here = column >= 0 && column < p.columns;
  float* const shared = SharedMemory<float>();
  if (threadIdx.x == 0) {
    float target_logit = here ? logits[column] : 0.0f;
    const double lse =
        p.statistics != nullptr ? JoinStatistics(p, row, &target_logit) : double{all.maximum} + log(double{all.sum});
    const bool known = target < p.vocabulary;
    p.losses[row] = known ? static_cast<float>(lse - target_logit) : NAN;
    shared[0] = known ? static_cast<float>(lse) : NAN;
    shared[1] = here ? static_cast<float>(expm1(target_logit - lse) * p.scale) : 0.0f;
  }
  __syncthreads();
  return {shared[0], shared[1], here ? static_cast<int>(column) : -1};
}

template <class G, int kWidth, class Access>
__device__ __forceinline__ void WriteGradient(const CrossEntropyParams& p, const RowGradient& row, const float* logits,
                                              G* dlogits, Access access) {
  const int step = static_cast<int>(blockDim.x) * kWidth;
#pragma unroll 4
  for (int i = (p.columns - 1) / step * step + static_cast<int>(threadIdx.x) * kWidth; i >= 0; i -= step) {
    if (i >= p.columns) continue;
    Pack<kWidth> v = Load<kWidth>(logits + i, access);
    for (int j = 0; j < kWidth; ++j) {
      v[j] = i + j == row.target ? row.target_gradient : expf(v[j] - row.lse) * p.scale;
    }
    Store(v, dlogits + i, access);
  }
}

template <class G, int kWidth, class Access>
__device__ __forceinline__ void ZeroGradient(const CrossEntropyParams& p, G* dlogits, Access access) {
  for (int i = threadIdx.x * kWidth; i < p.columns; i += static_cast<int>(blockDim.x) * kWidth) {
    Store(Pack<kWidth>{}, dlogits + i, access);
  }
}

// logits[rows, columns] -> losses[rows], dlogits[rows, columns]. The first pass has its own width, so that losses are
// the same bits whatever the type of dlogits.
template <class G, int kReadWidth, int kWriteWidth>
__global__ void __launch_bounds__(1024, 1) CrossEntropyKernel(CrossEntropyParams p) {
  const int64_t row = blockIdx.x;
  const int32_t target = p.targets[row];
  const float* const logits = p.logits + row * p.columns;
  G* const dlogits = p.dlogits != nullptr ? static_cast<G*>(p.dlogits) + row * p.columns : nullptr;
  const bool ignored = target < 0;
  if (ignored && threadIdx.x == 0) p.losses[row] = 0;
  RowGradient gradient{};
  if (!ignored) gradient = RowLoss<kReadWidth>(p, row, target, logits);
  if (dlogits == nullptr) return;
  WithAccess<kWriteWidth>(p.aligned && p.dlogits_aligned, [&](auto access) {
    if (ignored) {
      ZeroGradient<G, kWriteWidth>(p, dlogits, access);
    } else {
      WriteGradient<G, kWriteWidth>(p, gradient, logits, dlogits, access);
    }
  });
}

__global__ void SumLossesKernel(SumLossesParams p) {
  const double start = p.accumulate == Accumulate::kAdd ? *p.total : 0.0f;
  const double sum = OrderedSum(start, p.losses, p.rows);
  if (threadIdx.x == 0) *p.total = static_cast<float>(sum);
}

template <int kWidth>
__global__ void __launch_bounds__(1024, 1) LogitStatisticsKernel(LogitStatisticsParams p) {
  const int64_t row = blockIdx.x, column = p.targets[row] - p.first_column;
  const float* const logits = p.logits + row * p.columns;
  const ExponentialSum all = SumExponentials<kWidth>(logits, p.columns, p.aligned);
  if (threadIdx.x != 0) return;
  float* const statistics = p.statistics + row * kStatistics;
  statistics[kMaximum] = all.maximum;
  statistics[kSum] = all.sum;
  statistics[kTargetLogit] = column >= 0 && column < p.columns ? logits[column] : 0.0f;
}

void (*KernelOf(const CrossEntropyParams& p))(CrossEntropyParams) {
  if (p.columns % 4 != 0) {
    return p.dtype == DType::kBF16 ? CrossEntropyKernel<BFloat16, 1, 1> : CrossEntropyKernel<float, 1, 1>;
  }
  if (p.dtype == DType::kF32) return CrossEntropyKernel<float, 4, 4>;
  return p.columns % 8 == 0 ? CrossEntropyKernel<BFloat16, 4, 8> : CrossEntropyKernel<BFloat16, 4, 1>;
}

LaunchConfig RowsLaunch(const char* name, cudaStream_t stream, int64_t rows, int64_t columns) {
  return {name, dim3(rows), dim3(ThreadsOf(columns)), kScratchFloats * static_cast<int>(sizeof(float)), stream};
}

}  // namespace

cudaError_t CrossEntropy(cudaStream_t stream, const CrossEntropyArgs& args) {
  CheckArguments(args);
  const int64_t rows = args.logits.rows(), columns = args.logits.columns();
  const CrossEntropyParams params{
      .dtype = args.dlogits ? args.dlogits.dtype : DType::kF32,
      .aligned = Aligned({args.logits.data}),
      .dlogits_aligned = Aligned({args.dlogits.data}),
      .columns = static_cast<int>(columns),
      .parts = args.statistics ? static_cast<int>(args.statistics.shape[0]) : 0,
      .rows = rows,
      .first_column = args.columns.first,
      .vocabulary = args.columns.vocabulary > 0 ? args.columns.vocabulary : columns,
      .scale = args.scale,
      .logits = args.logits.as<float>(),
      .statistics = args.statistics.as<float>(),
      .targets = args.targets.as<int32_t>(),
      .losses = args.losses.as<float>(),
      .dlogits = args.dlogits.data,
  };
  if (rows > 0) {
    const cudaError_t error =
        Launch(KernelOf(params), RowsLaunch("CrossEntropy", stream, rows, columns),
               {Of(args.logits), Of(args.statistics), Of(args.targets)}, {Of(args.losses), Of(args.dlogits)}, params);
    if (error != cudaSuccess) return error;
  }
  const SumLossesParams sum{
      .accumulate = args.accumulate, .rows = rows, .losses = params.losses, .total = args.total.as<float>()};
  return Launch(SumLossesKernel, {"SumLosses", dim3(1), dim3(kOrderedSumThreads), kOrderedSumBytes, stream},
                {Of(args.losses), args.accumulate == Accumulate::kAdd ? Of(args.total) : Region{}}, {Of(args.total)},
                sum);
}

cudaError_t LogitStatistics(cudaStream_t stream, const LogitStatisticsArgs& args) {
  const int64_t rows = args.logits.rows(), columns = args.logits.columns();
  CheckArguments(args);
  if (rows == 0) return cudaSuccess;
  const LogitStatisticsParams params{
      .aligned = Aligned({args.logits.data}),
      .columns = static_cast<int>(columns),
      .rows = rows,
      .first_column = args.columns.first,
      .logits = args.logits.as<float>(),
      .targets = args.targets.as<int32_t>(),
      .statistics = args.statistics.as<float>(),
  };
  return Launch(columns % 4 == 0 ? LogitStatisticsKernel<4> : LogitStatisticsKernel<1>,
                RowsLaunch("LogitStatistics", stream, rows, columns), {Of(args.logits), Of(args.targets)},
                {Of(args.statistics)}, params);
}

}  // namespace sluice::cuda
