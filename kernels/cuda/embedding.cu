#include <limits>

#include "kernels/cuda/embedding.h"
#include "kernels/cuda/flat.h"
#include "kernels/operation_check.h"

namespace sluice::cuda {
namespace {

template <class T, int kWidth>
__global__ void EmbeddingForwardKernel(EmbeddingForwardParams p) {
  ForRowPack<kWidth>(p.columns, p.aligned, [&](int64_t row, int column, auto access) {
    const int64_t token = p.tokens[row], position = p.position_table != nullptr ? p.positions[row] : 0;
    const int64_t table_row = token - p.first_row;
    Pack<kWidth> y{};
    if (token < 0 || token >= p.vocabulary || position < 0 || position >= p.position_rows) {
      for (int j = 0; j < kWidth; ++j) y[j] = std::numeric_limits<float>::quiet_NaN();
    } else if (table_row >= 0 && table_row < p.table_rows) {
      y = Load<kWidth>(p.table + table_row * p.columns + column, access);
      if (p.position_table != nullptr) {
        const Pack<kWidth> add = Load<kWidth>(p.position_table + position * p.columns + column, access);
        for (int j = 0; j < kWidth; ++j) y[j] += add[j];
      }
    }
    Store(y, static_cast<T*>(p.y) + row * p.columns + column, access);
  });
}

// Indices that a block looks at together, and gradients' rows that it fetches before it adds them.
constexpr int kSearchThreads = 128;
constexpr int kSearched = 4 * kSearchThreads;
constexpr int kSearchMasks = kSearched / kWarp;
constexpr int kRowsAhead = 8;

// Whether an index before `place` is the same. For all threads of the block.
__device__ bool OccursBefore(const int32_t* indices, int place, int index) {
  for (int base = 0; base < place; base += kSearched) {
    int found = 0;
    for (int k = 0; k < kSearched; k += kSearchThreads) {
      const int j = base + k + static_cast<int>(threadIdx.x);
      found |= j < place && indices[j] == index;
    }
    if (__syncthreads_or(found)) return true;
  }
  return false;
}

// Writes the places from `base` on, of kSearched, where the index is, in order to `places`, and returns how many.
__device__ int FindPlaces(const int32_t* indices, int count, int base, int index, unsigned* masks, int* places) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  constexpr int kWarps = kSearchThreads / kWarp;
  unsigned mine[kSearched / kSearchThreads];
  for (int k = 0; k < kSearched / kSearchThreads; ++k) {
    const int j = base + k * kSearchThreads + static_cast<int>(threadIdx.x);
    mine[k] = __ballot_sync(kAllLanes, j < count && indices[j] == index);
    if (lane == 0) masks[k * kWarps + warp] = mine[k];
  }
  __syncthreads();
  int found = 0;
  for (int m = 0; m < kSearchMasks; ++m) {
    if (m % kWarps == warp && (mine[m / kWarps] >> lane & 1) != 0) {
      places[found + __popc(mine[m / kWarps] & ((1u << lane) - 1))] = base + m * kWarp + lane;
    }
    found += __popc(masks[m]);
  }
  __syncthreads();
  return found;
}

// Adds the rows of dy at `places` to a row of the table, in order.
template <class T, int kWidth, class Access>
__device__ void AddRows(const EmbeddingGradientParams& p, const int* places, int found, float* target, Access access) {
  const T* const dy = static_cast<const T*>(p.dy);
  for (int column = threadIdx.x * kWidth; column < p.columns; column += kSearchThreads * kWidth) {
    Pack<kWidth> sum = Load<kWidth>(target + column, access);
    for (int first = 0; first < found; first += kRowsAhead) {
      Pack<kWidth> rows[kRowsAhead];
#pragma unroll
      for (int k = 0; k < kRowsAhead; ++k) {
        if (first + k < found) {
          rows[k] = Load<kWidth>(dy + int64_t{places[first + k]} * p.columns + column, access);
        }
      }
#pragma unroll
      for (int k = 0; k < kRowsAhead; ++k) {
        if (first + k < found) {
          for (int j = 0; j < kWidth; ++j) sum[j] += rows[k][j];
        }
      }
    }
    Store(sum, target + column, access);
  }
}

// A block for each index. That of the first place where an index occurs has the index's row; the others have nothing to
// do. Comparing each index with all before it costs less than moving the gradient, up to some ten thousand of them.
template <class T, int kWidth>
__global__ void EmbeddingGradientKernel(EmbeddingGradientParams p) {
  const int place = blockIdx.x, index = p.indices[place];
  const int64_t row = index - p.first_row;
  if (index < 0 || row < 0 || row >= p.table_rows) return;
  if (OccursBefore(p.indices, place, index)) return;
  unsigned* const masks = SharedMemory<unsigned>();
  int* const places = reinterpret_cast<int*>(masks + kSearchMasks);
  for (int base = place; base < p.indices_count; base += kSearched) {
    const int found = FindPlaces(p.indices, p.indices_count, base, index, masks, places);
    if (found == 0) continue;
    float* const target = p.dtable + row * p.columns;
    WithAccess<kWidth>(p.aligned, [&](auto access) { AddRows<T, kWidth>(p, places, found, target, access); });
  }
}

}  // namespace

cudaError_t EmbeddingForward(cudaStream_t stream, const EmbeddingForwardArgs& args) {
  const int64_t rows = args.y.rows(), columns = args.y.columns();
  CheckArguments(args);
  if (rows == 0) return cudaSuccess;
  const int64_t table_rows = args.table.rows();
  const EmbeddingForwardParams params{.dtype = args.y.dtype,
                                      .aligned = Aligned({args.table.data, args.position_table.data, args.y.data}),
                                      .columns = static_cast<int>(columns),
                                      .rows = rows,
                                      .table_rows = table_rows,
                                      .position_rows = args.position_table ? args.position_table.rows() : 1,
                                      .first_row = args.rows.first,
                                      .vocabulary = args.rows.vocabulary > 0 ? args.rows.vocabulary : table_rows,
                                      .tokens = args.tokens.as<int32_t>(),
                                      .positions = args.positions.as<int32_t>(),
                                      .table = args.table.as<float>(),
                                      .position_table = args.position_table.as<float>(),
                                      .y = args.y.data};
  const auto kernel =
      ForRowsOf(params.dtype, columns, [&]<class T, int kWidth>() { return &EmbeddingForwardKernel<T, kWidth>; });
  return Launch(kernel, ChunkLaunch("EmbeddingForward", stream, params.dtype, rows, columns),
                {Of(args.tokens), Of(args.positions), Of(args.table), Of(args.position_table)}, {Of(args.y)}, params);
}

cudaError_t EmbeddingGradient(cudaStream_t stream, const EmbeddingGradientArgs& args) {
  const int64_t rows = args.dy.rows(), columns = args.dy.columns();
  CheckArguments(args);
  if (args.accumulate == Accumulate::kOverwrite) {
    const cudaError_t error = cudaMemsetAsync(args.dtable.data, 0, args.dtable.bytes(), stream);
    if (error != cudaSuccess) return error;
  }
  if (rows == 0) return cudaSuccess;
  const EmbeddingGradientParams params{.dtype = args.dy.dtype,
                                       .aligned = Aligned({args.dy.data, args.dtable.data}),
                                       .columns = static_cast<int>(columns),
                                       .indices_count = static_cast<int>(rows),
                                       .table_rows = args.dtable.rows(),
                                       .first_row = args.rows.first,
                                       .indices = args.indices.as<int32_t>(),
                                       .dy = args.dy.data,
                                       .dtable = args.dtable.as<float>()};
  const auto kernel =
      ForRowsOf(params.dtype, columns, [&]<class T, int kWidth>() { return &EmbeddingGradientKernel<T, kWidth>; });
  const LaunchConfig config{"EmbeddingGradient", dim3(rows), dim3(kSearchThreads),
                            (kSearchMasks + kSearched) * static_cast<int>(sizeof(int)), stream};
  return Launch(kernel, config, {Of(args.indices), Of(args.dy), Of(args.dtable)}, {Of(args.dtable)}, params);
}

}  // namespace sluice::cuda
