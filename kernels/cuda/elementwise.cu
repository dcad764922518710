#include <bit>

#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/flat.h"
#include "kernels/operation_check.h"
#include "kernels/tensor_check.h"

namespace sluice::cuda {
namespace {

template <class T>
__global__ void AddKernel(AddParams p) {
  constexpr int kWidth = kPackOf<T>;
  ForFlatPack<T>(p.elements, p.aligned, [&](int64_t i, auto access) {
    Pack<kWidth> sum = Load<kWidth>(static_cast<const T*>(p.a) + i, access);
    const Pack<kWidth> b = Load<kWidth>(static_cast<const T*>(p.b) + i, access);
    for (int j = 0; j < kWidth; ++j) sum[j] += b[j];
    Store(sum, static_cast<T*>(p.y) + i, access);
  });
}

template <class T>
__global__ void SumInOrderKernel(SumInOrderParams p) {
  constexpr int kWidth = kPackOf<T>;
  ForFlatPack<T>(p.elements, p.aligned, [&](int64_t i, auto access) {
    Pack<kWidth> sum = Load<kWidth>(static_cast<const T*>(p.parts[0]) + i, access);
#pragma unroll 4
    for (int part = 1; part < p.count; ++part) {
      const Pack<kWidth> v = Load<kWidth>(static_cast<const T*>(p.parts[part]) + i, access);
      for (int j = 0; j < kWidth; ++j) sum[j] += v[j];
    }
    Store(sum, static_cast<T*>(p.sum) + i, access);
  });
}

template <class T>
__global__ void FillKernel(FillParams p) {
  constexpr int kWidth = kPackOf<T>;
  ForFlatPack<T>(p.elements, p.aligned, [&](int64_t i, auto access) {
    Pack<kWidth> pack;
    for (int j = 0; j < kWidth; ++j) pack[j] = p.value;
    Store(pack, static_cast<T*>(p.target) + i, access);
  });
}

__global__ void CastKernel(CastParams p) {
  constexpr int kWidth = kPackOf<BFloat16>;
  ForFlatPack<BFloat16>(p.elements, p.aligned, [&](int64_t i, auto access) {
    Store(Load<kWidth>(p.source + i, access), p.target + i, access);
  });
}

}  // namespace

cudaError_t Add(cudaStream_t stream, const AddArgs& args) {
  CheckArguments(args);
  const AddParams params{.dtype = args.a.dtype,
                         .aligned = Aligned({args.a.data, args.b.data, args.y.data}),
                         .elements = args.a.elements(),
                         .a = args.a.data,
                         .b = args.b.data,
                         .y = args.y.data};
  if (params.elements == 0) return cudaSuccess;
  return Launch(params.dtype == DType::kBF16 ? AddKernel<BFloat16> : AddKernel<float>,
                FlatLaunch("Add", stream, params.dtype, params.elements), {Of(args.a), Of(args.b)}, {Of(args.y)},
                params);
}

cudaError_t SumInOrder(cudaStream_t stream, absl::Span<const TensorView> parts, const TensorView& sum) {
  CheckSumInOrder(parts, sum);
  SumInOrderParams params{.dtype = sum.dtype,
                          .aligned = Aligned({sum.data}),
                          .count = static_cast<int>(parts.size()),
                          .elements = sum.elements(),
                          .parts = {},
                          .sum = sum.data};
  Region reads[kPartsMax];
  for (int p = 0; p < params.count; ++p) {
    params.parts[p] = parts[p].data;
    reads[p] = Of(parts[p]);
    params.aligned = params.aligned && Aligned({parts[p].data});
  }
  if (params.elements == 0) return cudaSuccess;
  return Launch(params.dtype == DType::kBF16 ? SumInOrderKernel<BFloat16> : SumInOrderKernel<float>,
                FlatLaunch("SumInOrder", stream, params.dtype, params.elements),
                absl::MakeConstSpan(reads, parts.size()), {Of(sum)}, params);
}

cudaError_t Fill(cudaStream_t stream, const TensorView& target, float value) {
  CHECK(target) << "target is absent";
  if (target.elements() == 0) return cudaSuccess;
  const FillParams params{
      .dtype = target.dtype,
      .aligned = Aligned({target.data}),
      .value = target.dtype == DType::kI32 ? std::bit_cast<float>(static_cast<int32_t>(value)) : value,
      .elements = target.elements(),
      .target = target.data};
  return Launch(params.dtype == DType::kBF16 ? FillKernel<BFloat16> : FillKernel<float>,
                FlatLaunch("Fill", stream, params.dtype, params.elements), {}, {Of(target)}, params);
}

cudaError_t Copy(cudaStream_t stream, const TensorView& source, const TensorView& target) {
  CheckCopy(source, target);
  if (source.elements() == 0) return cudaSuccess;
  return cudaMemcpyAsync(target.data, source.data, source.bytes(), cudaMemcpyDeviceToDevice, stream);
}

cudaError_t CastToBFloat16(cudaStream_t stream, const TensorView& source, const TensorView& target) {
  CheckVector("source", source, source.elements(), DType::kF32);
  CheckVector("target", target, source.elements(), DType::kBF16);
  if (source.elements() == 0) return cudaSuccess;
  const CastParams params{.aligned = Aligned({source.data, target.data}),
                          .elements = source.elements(),
                          .source = source.as<float>(),
                          .target = target.as<BFloat16>()};
  return Launch(CastKernel, FlatLaunch("CastToBFloat16", stream, DType::kBF16, params.elements), {Of(source)},
                {Of(target)}, params);
}

}  // namespace sluice::cuda
