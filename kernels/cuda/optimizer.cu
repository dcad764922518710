#include <cmath>

#include "kernels/cuda/flat.h"
#include "kernels/cuda/optimizer.h"
#include "kernels/cuda/ordered_sum.h"
#include "kernels/operation_check.h"

namespace sluice::cuda {
namespace {

constexpr int kNormThreads = 512;

// A block has kNormBlock elements of the gradient: partials[block] = the sum of their squares.
__global__ void SquaredNormKernel(SquaredNormParams p) {
  constexpr int kWidth = kPackOf<float>, kStep = kNormThreads * kWidth;
  const int64_t block = int64_t{blockIdx.x} * kNormBlock, available = p.elements - block;
  const int first = static_cast<int>(threadIdx.x) * kWidth;
  Pack<1> sum{};
  const auto add = [&](int i, auto access) {
    const Pack<kWidth> v = Load<kWidth>(p.gradient + block + i, access);
    for (int j = 0; j < kWidth; ++j) sum[0] += v[j] * v[j];
  };
  if (p.aligned && available >= kNormBlock) {
#pragma unroll
    for (int i = first; i < kNormBlock; i += kStep) add(i, Wide());
  } else {
    for (int i = first; i < kNormBlock && i < available; i += kStep) {
      add(i, Narrow{available - i < kWidth ? static_cast<int>(available - i) : kWidth});
    }
  }
  sum = SumOverBlock(sum, SharedMemory<float>());
  if (threadIdx.x == 0) p.partials[blockIdx.x] = sum[0];
}

__global__ void DecideStepKernel(DecideStepParams p) {
  const double norm = sqrt(OrderedSum(0, p.partials, p.count));
  if (threadIdx.x != 0) return;
  StepControl decision{.norm = static_cast<float>(norm)};
  if (!std::isfinite(norm)) {
    decision.skip = 1;
    decision.scale = 0;
  } else if (p.max_norm > 0) {
    decision.scale = static_cast<float>(fmin(1.0, p.max_norm / (norm + 1e-6)));
  }
  *p.control = decision;
}

__global__ void GuessStepKernel(GuessStepParams p) {
  StepControl decision = *p.control;
  if (decision.scale < 1) decision.skip = 1;
  *p.guess = decision;
}

__global__ void AdamWKernel(AdamWParams p) {
  constexpr int kWidth = kPackOf<float>;
  if (p.control->skip != 0) return;
  ForFlatPack<float>(p.elements, p.aligned, [&](int64_t i, auto access) {
    const float scale = p.control->scale;
    const Pack<kWidth> gradient = Load<kWidth>(p.gradient + i, access);
    Pack<kWidth> parameter = Load<kWidth>(p.parameter + i, access);
    Pack<kWidth> m = Load<kWidth>(p.m + i, access), v = Load<kWidth>(p.v + i, access);
    for (int j = 0; j < kWidth; ++j) {
      UpdateAdamW(p.factors, gradient[j] * scale, parameter[j], m[j], v[j]);
    }
    Store(m, p.m + i, access);
    Store(v, p.v + i, access);
    Store(parameter, p.parameter + i, access);
  });
}

}  // namespace

cudaError_t SquaredNorm(cudaStream_t stream, const TensorView& gradient, const TensorView& partials) {
  CheckSquaredNorm(gradient, partials);
  const int64_t blocks = NormBlocks(gradient.elements());
  if (blocks == 0) return cudaSuccess;
  const SquaredNormParams params{.aligned = Aligned({gradient.data}),
                                 .elements = gradient.elements(),
                                 .gradient = gradient.as<float>(),
                                 .partials = partials.as<float>()};
  const int shared = kNormThreads / kWarp * static_cast<int>(sizeof(float));
  return Launch(SquaredNormKernel, {"SquaredNorm", dim3(blocks), dim3(kNormThreads), shared, stream}, {Of(gradient)},
                {Of(partials)}, params);
}

cudaError_t DecideStep(cudaStream_t stream, const TensorView& partials, float max_norm, const TensorView& control) {
  CheckDecideStep(partials, control);
  const DecideStepParams params{.max_norm = max_norm,
                                .count = partials.elements(),
                                .partials = partials.as<float>(),
                                .control = control.as<StepControl>()};
  return Launch(DecideStepKernel, {"DecideStep", dim3(1), dim3(kOrderedSumThreads), kOrderedSumBytes, stream},
                {Of(partials)}, {Of(control)}, params);
}

cudaError_t GuessStep(cudaStream_t stream, const TensorView& control, const TensorView& guess) {
  CheckGuessStep(control, guess);
  const GuessStepParams params{.control = control.as<StepControl>(), .guess = guess.as<StepControl>()};
  return Launch(GuessStepKernel, {"GuessStep", dim3(1), dim3(1), 0, stream}, {Of(control)}, {Of(guess)}, params);
}

cudaError_t AdamW(cudaStream_t stream, const AdamWArgs& args) {
  const int64_t elements = args.parameter.elements();
  CheckArguments(args);
  if (elements == 0) return cudaSuccess;
  const AdamWParams params{.aligned = Aligned({args.parameter.data, args.gradient.data, args.m.data, args.v.data}),
                           .factors = FactorsOf(args),
                           .elements = elements,
                           .gradient = args.gradient.as<float>(),
                           .control = args.control.as<StepControl>(),
                           .parameter = args.parameter.as<float>(),
                           .m = args.m.as<float>(),
                           .v = args.v.as<float>()};
  return Launch(AdamWKernel, FlatLaunch("AdamW", stream, DType::kF32, elements),
                {Of(args.gradient), Of(args.control), Of(args.parameter), Of(args.m), Of(args.v)},
                {Of(args.parameter), Of(args.m), Of(args.v)}, params);
}

}  // namespace sluice::cuda
