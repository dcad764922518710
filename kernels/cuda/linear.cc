#include "kernels/cuda/linear.h"

#include <algorithm>
#include <functional>

#include "kernels/cuda/column_sums.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/finish_linear.h"
#include "kernels/cuda/stopwatch.h"
#include "kernels/operation_check.h"
#include "kernels/tensor_check.h"

namespace sluice::cuda {
namespace {

// Sums of unfused products, bias vectors and bias gradients lie behind the library's part.
constexpr int64_t kScratchBytes = int64_t{32} << 20;

struct Scratch {
  Workspace library, own;
};
Scratch Split(const Workspace& workspace) {
  CHECK_GE(workspace.bytes, LinearWorkspaceBytes());
  return {.library = {workspace.data, kMatmulWorkspaceBytes},
          .own = {workspace.data + kMatmulWorkspaceBytes, workspace.bytes - kMatmulWorkspaceBytes}};
}

TensorView Rows(const TensorView& matrix, int64_t first, int64_t count) {
  if (!matrix) return {};
  const int64_t columns = matrix.columns();
  return {matrix.data + first * columns * SizeOf(matrix.dtype), matrix.dtype, {count, columns}};
}

// y'[N,M] = weight[N,K] . x'[K,M]
MatmulShape ForwardShape(const LinearForwardArgs& args, int64_t rows, DType out) {
  const auto [n, k, compute, packed_for] = args.shape;
  return {.m = n,
          .n = rows,
          .k = k,
          .transpose_a = Transpose::kYes,
          .in = compute,
          .out = out,
          .lda = k,
          .ldb = k,
          .ldd = n,
          .alignment = AlignmentOf({args.packed.data, args.x.data})};
}

// With everything that the epilogue can take.
MatmulShape FusedForwardShape(const LinearForwardArgs& args) {
  MatmulShape shape = ForwardShape(args, args.x.rows(), args.y.dtype);
  shape.epilogue = args.bias ? Epilogue::kBias : Epilogue::kNone;
  shape.beta = args.add ? 1 : 0;
  shape.alignment = AlignmentOf({args.packed.data, args.x.data, args.y.data, args.add.data});
  return shape;
}

cudaError_t FusedForward(Matmul& matmul, cudaStream_t stream, const LinearForwardArgs& args, const Scratch& scratch) {
  void* bias = args.bias.data;
  if (args.bias && args.y.dtype == DType::kBF16) {
    const TensorView rounded{scratch.own.data, DType::kBF16, {args.shape.n}};
    CHECK_LE(rounded.bytes(), scratch.own.bytes);
    if (const cudaError_t error = CastToBFloat16(stream, args.bias, rounded); error != cudaSuccess) return error;
    bias = rounded.data;
  }
  return matmul.Run(stream, FusedForwardShape(args),
                    {.a = args.packed.data, .b = args.x.data, .c = args.add.data, .d = args.y.data, .bias = bias},
                    scratch.library);
}

// The reference: sums in f32, block by block of rows, then all the rest in one pass.
cudaError_t UnfusedForward(Matmul& matmul, cudaStream_t stream, const LinearForwardArgs& args, const Scratch& scratch) {
  const int64_t n = args.shape.n, rows = args.x.rows(), block = std::max<int64_t>(1, kScratchBytes / (4 * n));
  for (int64_t first = 0; first < rows; first += block) {
    const int64_t count = std::min(block, rows - first);
    const TensorView sums{scratch.own.data, DType::kF32, {count, n}}, x = Rows(args.x, first, count);
    CHECK_LE(sums.bytes(), scratch.own.bytes);
    MatmulShape shape = ForwardShape(args, count, DType::kF32);
    shape.alignment = AlignmentOf({args.packed.data, x.data, sums.data});
    cudaError_t error =
        matmul.Run(stream, shape, {.a = args.packed.data, .b = x.data, .d = sums.data}, scratch.library);
    if (error != cudaSuccess) return error;
    error = FinishLinear(
        stream,
        {.sums = sums, .bias = args.bias, .add = Rows(args.add, first, count), .y = Rows(args.y, first, count)});
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

bool CanFuse(Matmul& matmul, const LinearForwardArgs& args) {
  if (args.add && args.add.dtype != args.y.dtype) return false;  // the library adds what has the result's type
  const std::optional<MatmulShape> shape = EpilogueShape(args);
  return !shape.has_value() || matmul.Fuses(*shape);
}

// dx'[K,M] = weight'[K,N] . dy'[N,M]
MatmulShape InputGradientShape(const LinearInputGradientArgs& args) {
  const auto [n, k, compute, packed_for] = args.shape;
  return {.m = k,
          .n = args.dy.rows(),
          .k = n,
          .in = compute,
          .out = args.dx.dtype,
          .lda = k,
          .ldb = n,
          .ldd = k,
          .alignment = AlignmentOf({args.packed.data, args.dy.data, args.dx.data})};
}

// dweight'[K,N] (+)= x'[K,M] . dy[M,N]
MatmulShape WeightGradientShape(const LinearWeightGradientArgs& args, Epilogue epilogue) {
  const auto [n, k, compute, packed_for] = args.shape;
  return {.m = k,
          .n = n,
          .k = args.x.rows(),
          .transpose_b = Transpose::kYes,
          .in = compute,
          .out = DType::kF32,
          .epilogue = epilogue,
          .beta = args.accumulate == Accumulate::kAdd ? 1 : 0,
          .lda = k,
          .ldb = n,
          .ldd = k,
          .alignment = AlignmentOf({args.x.data, args.dy.data, args.dweight.data})};
}

cudaError_t RunWeightGradient(Matmul& matmul, cudaStream_t stream, const LinearWeightGradientArgs& args,
                              Epilogue epilogue, const Scratch& scratch) {
  return matmul.Run(
      stream, WeightGradientShape(args, epilogue),
      {.a = args.x.data, .b = args.dy.data, .c = args.dweight.data, .d = args.dweight.data, .bias = scratch.own.data},
      scratch.library);
}

cudaError_t FusedWeightGradient(Matmul& matmul, cudaStream_t stream, const LinearWeightGradientArgs& args,
                                const Scratch& scratch) {
  const cudaError_t error = RunWeightGradient(matmul, stream, args, Epilogue::kBiasGradient, scratch);
  if (error != cudaSuccess) return error;
  const int columns = static_cast<int>(args.shape.n);
  return SumPartials(stream, {.accumulate = args.accumulate,
                              .columns = columns,
                              .partial_columns = columns,
                              .groups = 1,
                              .partials = reinterpret_cast<const float*>(scratch.own.data),
                              .first = args.dbias.as<float>(),
                              .second = nullptr});
}

cudaError_t UnfusedWeightGradient(Matmul& matmul, cudaStream_t stream, const LinearWeightGradientArgs& args,
                                  const Scratch& scratch) {
  const cudaError_t error = RunWeightGradient(matmul, stream, args, Epilogue::kNone, scratch);
  if (error != cudaSuccess || !args.dbias) return error;
  return BiasGradient(stream, args.dy, args.dbias, args.accumulate, scratch.own);
}

void CheckPacked(const LinearShape& shape, const TensorView& packed) {
  CHECK_GE(packed.bytes(), PackedLinearBytes(shape)) << "packed weight of " << shape.n << " x " << shape.k;
}

void Check(const LinearForwardArgs& args) {
  CheckArguments(args);
  CheckPacked(args.shape, args.packed);
}

using Work = std::function<cudaError_t()>;
constexpr int kRepeats = 5;

// Whether `fused` is faster than `plain`.
absl::Status Compare(Matmul& matmul, cudaStream_t stream, const MatmulShape& shape, const Work& fused,
                     const Work& plain) {
  Stopwatch stopwatch(stream);
  float fused_ms = 0, plain_ms = 0;
  cudaError_t error = stopwatch.Time(kRepeats, fused, &fused_ms);
  if (error == cudaSuccess) error = stopwatch.Time(kRepeats, plain, &plain_ms);
  if (error != cudaSuccess) return absl::InternalError(cudaGetErrorString(error));
  matmul.SetFused(shape, fused_ms <= plain_ms);
  return absl::OkStatus();
}

// Whether to fuse is measured with the algorithms; those of products alone Matmul measures by itself.
template <class Args>
cudaError_t MeasureIfToBe(Matmul& matmul, cudaStream_t stream, const Args& args, const Workspace& workspace) {
  const std::optional<MatmulShape> shape = EpilogueShape(args);
  if (!shape.has_value() || !matmul.IsToMeasure(*shape)) return cudaSuccess;
  const absl::Status measured = MeasureLinear(matmul, stream, args, workspace);
  return measured.ok() || absl::IsUnimplemented(measured) ? cudaSuccess : cudaErrorUnknown;
}

}  // namespace

int64_t LinearWorkspaceBytes() { return kMatmulWorkspaceBytes + kScratchBytes; }

cudaError_t PackLinear(cudaStream_t stream, const LinearShape& shape, const TensorView& weight,
                       const TensorView& packed) {
  CheckMatrix("weight", weight, shape.n, shape.k, DType::kF32);
  CheckPacked(shape, packed);
  const TensorView target{packed.data, shape.compute, {shape.n, shape.k}};
  return shape.compute == DType::kBF16 ? CastToBFloat16(stream, weight, target) : Copy(stream, weight, target);
}

cudaError_t LinearForward(Matmul& matmul, cudaStream_t stream, const LinearForwardArgs& args,
                          const Workspace& workspace) {
  Check(args);
  if (cudaError_t error = MeasureIfToBe(matmul, stream, args, workspace); error != cudaSuccess) return error;
  return CanFuse(matmul, args) ? FusedForward(matmul, stream, args, Split(workspace))
                               : UnfusedForward(matmul, stream, args, Split(workspace));
}

cudaError_t LinearInputGradient(Matmul& matmul, cudaStream_t stream, const LinearInputGradientArgs& args,
                                const Workspace& workspace) {
  CheckArguments(args);
  CheckPacked(args.shape, args.packed);
  return matmul.Run(stream, InputGradientShape(args), {.a = args.packed.data, .b = args.dy.data, .d = args.dx.data},
                    Split(workspace).library);
}

cudaError_t LinearWeightGradient(Matmul& matmul, cudaStream_t stream, const LinearWeightGradientArgs& args,
                                 const Workspace& workspace) {
  CheckArguments(args);
  if (cudaError_t error = MeasureIfToBe(matmul, stream, args, workspace); error != cudaSuccess) return error;
  const std::optional<MatmulShape> shape = EpilogueShape(args);
  const bool fuse = shape.has_value() && matmul.Fuses(*shape);
  return fuse ? FusedWeightGradient(matmul, stream, args, Split(workspace))
              : UnfusedWeightGradient(matmul, stream, args, Split(workspace));
}

std::optional<MatmulShape> EpilogueShape(const LinearForwardArgs& args) {
  const MatmulShape shape = FusedForwardShape(args);
  if (shape.epilogue == Epilogue::kNone && shape.beta == 0) return std::nullopt;
  return shape;
}

std::optional<MatmulShape> EpilogueShape(const LinearWeightGradientArgs& args) {
  if (!args.dbias) return std::nullopt;
  return WeightGradientShape(args, Epilogue::kBiasGradient);
}

absl::Status MeasureLinear(Matmul& matmul, cudaStream_t stream, const LinearForwardArgs& args,
                           const Workspace& workspace) {
  Check(args);
  const Scratch scratch = Split(workspace);
  if (args.add && args.add.dtype != args.y.dtype) return absl::OkStatus();
  const MatmulShape fused = FusedForwardShape(args);
  // For timing any vector is a bias; that of the very type is made when it is used.
  if (absl::Status status = matmul.Measure(
          stream, fused,
          {.a = args.packed.data, .b = args.x.data, .c = args.add.data, .d = args.y.data, .bias = args.bias.data},
          scratch.library);
      !status.ok()) {
    return status;
  }
  if (!EpilogueShape(args).has_value()) return absl::OkStatus();
  return Compare(
      matmul, stream, fused, [&] { return FusedForward(matmul, stream, args, scratch); },
      [&] { return UnfusedForward(matmul, stream, args, scratch); });
}

absl::Status MeasureLinear(Matmul& matmul, cudaStream_t stream, const LinearInputGradientArgs& args,
                           const Workspace& workspace) {
  return matmul.Measure(stream, InputGradientShape(args), {.a = args.packed.data, .b = args.dy.data, .d = args.dx.data},
                        Split(workspace).library);
}

absl::Status MeasureLinear(Matmul& matmul, cudaStream_t stream, const LinearWeightGradientArgs& args,
                           const Workspace& workspace) {
  CheckArguments(args);
  const Scratch scratch = Split(workspace);
  for (const Epilogue epilogue : {Epilogue::kNone, Epilogue::kBiasGradient}) {
    if (epilogue == Epilogue::kBiasGradient && !args.dbias) return absl::OkStatus();
    const MatmulShape shape = WeightGradientShape(args, epilogue);
    const absl::Status status = matmul.Measure(
        stream, shape,
        {.a = args.x.data, .b = args.dy.data, .c = args.dweight.data, .d = args.dweight.data, .bias = scratch.own.data},
        scratch.library);
    if (!status.ok()) return status;
  }
  return Compare(
      matmul, stream, WeightGradientShape(args, Epilogue::kBiasGradient),
      [&] { return FusedWeightGradient(matmul, stream, args, scratch); },
      [&] { return UnfusedWeightGradient(matmul, stream, args, scratch); });
}

}  // namespace sluice::cuda
