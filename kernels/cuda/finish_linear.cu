#include "kernels/cuda/finish_linear.h"
#include "kernels/cuda/flat.h"
#include "kernels/tensor_check.h"

namespace sluice::cuda {
namespace {

// A thread has a pack of a row.
template <class Add, class Y, int kWidth>
__global__ void FinishLinearKernel(FinishLinearParams p) {
  ForRowPack<kWidth>(p.columns, p.aligned, [&](int64_t row, int column, auto access) {
    const int64_t at = row * p.columns + column;
    Pack<kWidth> y = Load<kWidth>(p.sums + at, access);
    if (p.bias != nullptr) {
      const Pack<kWidth> bias = Load<kWidth>(p.bias + column, access);
      for (int i = 0; i < kWidth; ++i) y[i] += bias[i];
    }
    if (p.add != nullptr) {
      const Pack<kWidth> add = Load<kWidth>(static_cast<const Add*>(p.add) + at, access);
      for (int i = 0; i < kWidth; ++i) y[i] += add[i];
    }
    Store(y, static_cast<Y*>(p.y) + at, access);
  });
}

using Kernel = void (*)(FinishLinearParams);

template <class Add, class Y>
Kernel OfWidth(int64_t width) {
  return width == 1 ? FinishLinearKernel<Add, Y, 1> : FinishLinearKernel<Add, Y, kPackOf<BFloat16>>;
}
template <class Add>
Kernel OfResult(DType y, int64_t width) {
  return y == DType::kBF16 ? OfWidth<Add, BFloat16>(width) : OfWidth<Add, float>(width);
}

}  // namespace

cudaError_t FinishLinear(cudaStream_t stream, const FinishLinearArgs& args) {
  const int64_t rows = args.sums.rows(), columns = args.sums.columns();
  CheckMatrix("y", args.y, rows, columns, args.y.dtype);
  const FinishLinearParams params{.add_type = args.add ? args.add.dtype : DType::kF32,
                                  .y_type = args.y.dtype,
                                  .aligned = Aligned({args.sums.data, args.bias.data, args.add.data, args.y.data}),
                                  .rows = rows,
                                  .columns = static_cast<int>(columns),
                                  .sums = args.sums.as<float>(),
                                  .bias = args.bias.as<float>(),
                                  .add = args.add.data,
                                  .y = args.y.data};
  const int64_t width = RowWidth(DType::kBF16, columns);
  return Launch(params.add_type == DType::kBF16 ? OfResult<BFloat16>(params.y_type, width)
                                                : OfResult<float>(params.y_type, width),
                ChunkLaunch("FinishLinear", stream, DType::kBF16, rows, columns),
                {Of(args.sums), Of(args.bias), Of(args.add)}, {Of(args.y)}, params);
}

}  // namespace sluice::cuda
