#include "base/philox.h"
#include "kernels/cuda/dropout.h"
#include "kernels/cuda/flat.h"
#include "kernels/operation_check.h"

namespace sluice::cuda {
namespace {

// A pack of a token's row: elements from e on of its sample, e a multiple of 4 where the pack is wider than 1.
template <class T, int kWidth>
__global__ void DropoutKernel(DropoutParams p) {
  ForRowPack<kWidth>(p.columns, p.aligned, [&](int64_t row, int column, auto access) {
    const int64_t token = p.first_token + row, offset = row * p.columns + column;
    const uint32_t sample = static_cast<uint32_t>(p.samples[token / p.sequence]);
    const uint64_t e = static_cast<uint64_t>(token % p.sequence * p.columns + column);
    const T* const add = static_cast<const T*>(p.add);

    const Pack<kWidth> x = Load<kWidth>(static_cast<const T*>(p.x) + offset, access);
    Pack<kWidth> y = add != nullptr ? Load<kWidth>(add + offset, access) : Pack<kWidth>{};
    const float scale = 1.0f / (1.0f - p.rate);
    // Rounded before it is added, as on the CPU.
    const auto keep = [&](int j, uint32_t word) {
      const float kept = UnitFloat(word) >= p.rate ? __fmul_rn(x[j], scale) : 0.0f;
      y[j] = add != nullptr ? y[j] + kept : kept;
    };
#pragma unroll
    for (int quad = 0; quad < (kWidth + 3) / 4; ++quad) {
      const PhiloxBlock words = RandomWords(p.key.seed, p.key.name, p.key.step, sample, e / 4 + quad);
      if constexpr (kWidth == 1) {
        keep(0, e % 4 >= 2 ? (e % 2 == 0 ? words[2] : words[3]) : (e % 2 == 0 ? words[0] : words[1]));
      } else {
#pragma unroll
        for (int j = 0; j < 4; ++j) keep(4 * quad + j, words[j]);
      }
    }
    Store(y, static_cast<T*>(p.y) + offset, access);
  });
}

}  // namespace

cudaError_t Dropout(cudaStream_t stream, const DropoutArgs& args) {
  CheckArguments(args);
  const int64_t samples = args.samples.elements(), rows = args.x.rows(), columns = args.x.columns();
  const int64_t sequence = SequenceOf(args);
  if (rows == 0) return cudaSuccess;

  const DropoutParams params{.dtype = args.x.dtype,
                             .aligned = Aligned({args.x.data, args.add.data, args.y.data}),
                             .key = args.key,
                             .rate = args.rate,
                             .columns = static_cast<int>(columns),
                             .rows = rows,
                             .sequence = sequence,
                             .first_token = args.first_token,
                             .samples_count = static_cast<int>(samples),
                             .samples = args.samples.as<int32_t>(),
                             .x = args.x.data,
                             .add = args.add.data,
                             .y = args.y.data};
  // Of the samples, those whose tokens these are.
  const int64_t first = args.first_token / sequence, last = (args.first_token + rows - 1) / sequence;
  const Region indices{params.samples + first, (last - first + 1) * static_cast<int64_t>(sizeof(int32_t))};
  const auto kernel =
      ForRowsOf(params.dtype, columns, [&]<class T, int kWidth>() { return &DropoutKernel<T, kWidth>; });
  return Launch(kernel, ChunkLaunch("Dropout", stream, params.dtype, rows, columns),
                {indices, Of(args.x), Of(args.add)}, {Of(args.y)}, params);
}

}  // namespace sluice::cuda
