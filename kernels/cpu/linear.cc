#include "kernels/cpu/linear.h"

#include "kernels/cpu/linear_backends.h"
#include "kernels/cpu/onednn.h"
#include "kernels/cpu/tile_product.h"
#include "kernels/operation_check.h"
#include "kernels/tensor_check.h"

namespace sluice::cpu {
namespace {

struct Backend {
  int64_t (*packed_bytes)(const LinearShape&);
  void (*pack)(Team&, const LinearShape&, const float*, std::byte*);
  void (*multiply)(Team&, const PackedProductArgs&);
  void (*weight_gradient)(Team&, const LinearWeightGradientArgs&);
};
constexpr Backend kTiles{tiles::PackedLinearBytes, tiles::PackLinear, tiles::Multiply, tiles::WeightGradient};
constexpr Backend kLibrary{library::PackedLinearBytes, library::PackLinear, library::Multiply, library::WeightGradient};
constexpr Backend kPanels{panels::PackedLinearBytes, panels::PackLinear, panels::Multiply, panels::WeightGradient};

// bf16: our tiles, nearly twice as fast as the library's use of them; the library where it has other instructions for
// bf16. In f32 our panels: on AVX2, where the library copies both operands on every call, they are faster for every
// shape of a GPT, and on AVX-512 about as fast; and they allocate nothing.
const Backend& BackendOf(const LinearShape& shape) {
  if (shape.compute != DType::kBF16) return kPanels;
  if (tiles::Available()) return kTiles;
  return HasFastBFloat16() ? kLibrary : kPanels;
}

void CheckPacked(const LinearShape& shape, const TensorView& packed) {
  CHECK_GE(packed.bytes(), PackedLinearBytes(shape)) << "packed weight of " << shape.n << " x " << shape.k;
}

}  // namespace

void BiasGradient(const LinearWeightGradientArgs& args, Range rows, Range outputs, Accumulate accumulate) {
  CHECK_LE(outputs.count, kBiasColumns);
  float sums[kBiasColumns];
  WithType(args.dy.dtype, [&]<class T>(T) {
    SumColumns({rows.count, outputs.count}, BlockAt<const T>(args.dy, rows.begin, outputs.begin), sums);
  });
  float* dbias = args.dbias.as<float>() + outputs.begin;
  for (int64_t i = 0; i < outputs.count; ++i) {
    dbias[i] = accumulate == Accumulate::kAdd ? dbias[i] + sums[i] : sums[i];
  }
}

void BiasGradient(Team& team, const LinearWeightGradientArgs& args) {
  if (!args.dbias) return;
  const Split outputs(args.shape.n, kBiasColumns);
  team.ParallelFor(outputs.blocks(), [&](int64_t block) {
    BiasGradient(args, {0, args.dy.rows()}, {outputs.begin(block), outputs.size(block)}, args.accumulate);
  });
}

int64_t PackedLinearBytes(const LinearShape& shape) { return BackendOf(shape).packed_bytes(shape); }

void PackLinear(Team& team, const LinearShape& shape, TensorView weight, TensorView packed) {
  CheckMatrix("weight", weight, shape.n, shape.k, DType::kF32);
  CheckPacked(shape, packed);
  BackendOf(shape).pack(team, shape, weight.as<float>(), packed.data);
}

void LinearForward(Team& team, const LinearForwardArgs& args) {
  const LinearShape& shape = args.shape;
  CheckArguments(args);
  CheckPacked(shape, args.packed);
  BackendOf(shape).multiply(team, {.use = {shape, Use::kForward},
                                   .x = args.x,
                                   .packed = args.packed.data,
                                   .bias = args.bias.as<float>(),
                                   .add = args.add,
                                   .y = args.y});
}

void LinearInputGradient(Team& team, const LinearInputGradientArgs& args) {
  const LinearShape& shape = args.shape;
  CheckArguments(args);
  CHECK(shape.packed_for == PackedFor::kTraining) << "a weight packed for inference has no input gradient";
  CheckPacked(shape, args.packed);
  BackendOf(shape).multiply(
      team, {.use = {shape, Use::kInputGradient}, .x = args.dy, .packed = args.packed.data, .y = args.dx});
}

void LinearWeightGradient(Team& team, const LinearWeightGradientArgs& args) {
  CheckArguments(args);
  BackendOf(args.shape).weight_gradient(team, args);
}

}  // namespace sluice::cpu
