#include "kernels/cpu/linear.h"

#include "kernels/cpu/linear_backends.h"
#include "kernels/cpu/onednn.h"
#include "kernels/cpu/tensor_check.h"

namespace sluice::cpu {
namespace {

// Columns of the bias' gradient that one thread sums.
constexpr int64_t kBiasColumns = 64;

// The library where it has instructions for bf16. In f32 our panels: on AVX2, where the library copies both operands on
// every call, they are faster for every shape of a GPT, and on AVX-512 about as fast; and they allocate nothing.
bool UsesLibrary(const LinearShape& shape) { return shape.compute == DType::kBF16 && HasFastBFloat16(); }

void CheckPacked(const LinearShape& shape, const TensorView& packed) {
  CHECK_GE(packed.bytes(), PackedLinearBytes(shape)) << "packed weight of " << shape.n << " x " << shape.k;
}

void Multiply(Team& team, const PackedProductArgs& args) {
  UsesLibrary(args.use.shape) ? library::Multiply(team, args) : panels::Multiply(team, args);
}

void BiasGradient(const LinearWeightGradientArgs& args, int64_t first, int64_t count) {
  float sums[kBiasColumns];
  WithType(args.dy.dtype, [&]<class T>(T) {
    SumColumns({args.dy.rows(), count}, BlockAt<const T>(args.dy, 0, first), sums);
  });
  float* dbias = args.dbias.as<float>() + first;
  for (int64_t i = 0; i < count; ++i) {
    dbias[i] = args.accumulate == Accumulate::kAdd ? dbias[i] + sums[i] : sums[i];
  }
}

}  // namespace

int64_t PackedLinearBytes(const LinearShape& shape) {
  return UsesLibrary(shape) ? library::PackedLinearBytes(shape) : panels::PackedLinearBytes(shape);
}

void PackLinear(Team& team, const LinearShape& shape, TensorView weight, TensorView packed) {
  CheckMatrix("weight", weight, shape.n, shape.k, DType::kF32);
  CheckPacked(shape, packed);
  UsesLibrary(shape) ? library::PackLinear(team, shape, weight.as<float>(), packed.data)
                     : panels::PackLinear(team, shape, weight.as<float>(), packed.data);
}

void LinearForward(Team& team, const LinearForwardArgs& args) {
  const LinearShape& shape = args.shape;
  const int64_t rows = args.x.rows();
  CheckMatrix("x", args.x, rows, shape.k, shape.compute);
  CheckPacked(shape, args.packed);
  if (args.bias) CheckVector("bias", args.bias, shape.n, DType::kF32);
  if (args.add) CheckMatrix("add", args.add, rows, shape.n, shape.compute);
  CheckMatrix("y", args.y, rows, shape.n, args.y.dtype == DType::kF32 ? DType::kF32 : shape.compute);
  Multiply(team, {.use = {shape, Use::kForward},
                  .x = args.x,
                  .packed = args.packed.data,
                  .bias = args.bias.as<float>(),
                  .add = args.add,
                  .y = args.y});
}

void LinearInputGradient(Team& team, const LinearInputGradientArgs& args) {
  const LinearShape& shape = args.shape;
  const int64_t rows = args.dy.rows();
  CheckMatrix("dy", args.dy, rows, shape.n, shape.compute);
  CheckPacked(shape, args.packed);
  CheckMatrix("dx", args.dx, rows, shape.k, shape.compute);
  Multiply(team, {.use = {shape, Use::kInputGradient}, .x = args.dy, .packed = args.packed.data, .y = args.dx});
}

void LinearWeightGradient(Team& team, const LinearWeightGradientArgs& args) {
  const LinearShape& shape = args.shape;
  const int64_t rows = args.x.rows();
  CheckMatrix("x", args.x, rows, shape.k, shape.compute);
  CheckMatrix("dy", args.dy, rows, shape.n, shape.compute);
  CheckMatrix("dweight", args.dweight, shape.n, shape.k, DType::kF32);
  UsesLibrary(shape) ? library::WeightGradient(team, args) : panels::WeightGradient(team, args);
  if (!args.dbias) return;
  CheckVector("dbias", args.dbias, shape.n, DType::kF32);
  const Split columns(shape.n, kBiasColumns);
  team.ParallelFor(columns.blocks(),
                   [&](int64_t block) { BiasGradient(args, columns.begin(block), columns.size(block)); });
}

}  // namespace sluice::cpu
