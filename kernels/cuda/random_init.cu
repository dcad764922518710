#include <algorithm>

#include "base/philox.h"
#include "kernels/cuda/flat.h"
#include "kernels/cuda/random_init.h"
#include "kernels/operation_check.h"

namespace sluice::cuda {
namespace {

constexpr double kTwoPi = 6.28318530717958647693;

// One element of the target for each thread.
__global__ void InitNormalKernel(InitNormalParams p) {
  const int64_t i = int64_t{blockIdx.x} * kFlatThreads + threadIdx.x;
  if (i >= p.elements) return;
  const uint64_t e = static_cast<uint64_t>(p.first + i / p.columns * p.stride + i % p.columns);
  const PhiloxBlock words = RandomWords(p.key.seed, p.key.name, p.key.step, 0, e / 4);
  const bool second_pair = e % 4 >= 2;
  const double radius = sqrt(-2.0 * log(1.0 - UnitFloat(second_pair ? words[2] : words[0])));
  const double angle = kTwoPi * UnitFloat(second_pair ? words[3] : words[1]);
  p.target[i] = static_cast<float>(radius * p.deviation * (e % 2 == 0 ? cos(angle) : sin(angle)));
}

}  // namespace

cudaError_t InitNormal(cudaStream_t stream, const InitNormalArgs& args) {
  CheckArguments(args);
  const bool whole_rows = args.stride == 0 || args.stride == args.target.columns();
  const InitNormalParams params{.key = args.key,
                                .deviation = args.deviation,
                                .elements = args.target.elements(),
                                .columns = whole_rows ? args.target.elements() : args.target.columns(),
                                .first = args.first,
                                .stride = args.stride,
                                .target = args.target.as<float>()};
  if (params.elements == 0) return cudaSuccess;
  const LaunchConfig config{"InitNormal", dim3(DivideUp(params.elements, kFlatThreads)), dim3(kFlatThreads), 0, stream};
  return Launch(InitNormalKernel, config, {}, {Of(args.target)}, params);
}

}  // namespace sluice::cuda
