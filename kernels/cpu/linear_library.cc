#include "kernels/cpu/linear_backends.h"
#include "kernels/cpu/onednn.h"

namespace sluice::cpu::library {
namespace {

// Rows of a block of a product: all its columns, since the library is fast only without gaps between rows. Outputs and
// inputs of a block of a weight gradient. Smaller blocks multiply slower, larger ones leave threads without work on
// small micro-batches.
constexpr int64_t kRows = 128;
constexpr int64_t kGradientOutputs = 128;
constexpr int64_t kGradientInputs = 512;

RightMatrix Right(const PackedUse& use) { return {use.depth(), use.columns(), use.shape.compute}; }

// A packed weight: the matrix of the forward product, then that of the input gradient.
int64_t PackedUseBytes(const PackedUse& use) { return RoundUp(PackedBytes(Right(use)), 64); }
int64_t PackedOffset(const PackedUse& use) {
  return use.use == Use::kForward ? 0 : PackedUseBytes({use.shape, Use::kForward});
}

// The library adds to what stands in y: bring `add` there first.
void CopyAddend(const PackedProductArgs& args, int64_t row, int64_t rows) {
  WithType(args.add.dtype, [&]<class From>(From) {
    WithType(args.y.dtype, [&]<class To>(To) {
      ConvertRows({rows, args.y.columns()}, BlockAt<const From>(args.add, row, 0), BlockAt<To>(args.y, row, 0));
    });
  });
}

}  // namespace

int64_t PackedLinearBytes(const LinearShape& shape) {
  const bool forward_only = shape.packed_for == PackedFor::kInference;
  return PackedUseBytes({shape, Use::kForward}) + (forward_only ? 0 : PackedUseBytes({shape, Use::kInputGradient}));
}

void PackLinear(Team& team, const LinearShape& shape, const float* weight, std::byte* packed) {
  team.ParallelFor(shape.packed_for == PackedFor::kInference ? 1 : 2, [&](int64_t block) {
    const PackedUse use{shape, block == 0 ? Use::kForward : Use::kInputGradient};
    Pack(Right(use), weight, {use.depth_stride(), use.column_stride()}, packed + PackedOffset(use));
  });
}

void Multiply(Team& team, const PackedProductArgs& args) {
  const Split rows(args.x.rows(), kRows);
  team.ParallelFor(rows.blocks(), [&](int64_t block) {
    const int64_t row = rows.begin(block), count = rows.size(block);
    if (args.add && args.add.data != args.y.data) CopyAddend(args, row, count);
    cpu::Multiply(RightProduct{.right = Right(args.use),
                               .rows = count,
                               .x_stride = args.x.columns(),
                               .y_stride = args.y.columns(),
                               .y_type = args.y.dtype,
                               .has_bias = args.bias != nullptr,
                               .result = args.add ? Result::kAddTo : Result::kWrite},
                  At(args.x, row, 0), args.packed + PackedOffset(args.use), args.bias, At(args.y, row, 0));
  });
}

void WeightGradient(Team& team, const LinearWeightGradientArgs& args) {
  const Split outputs(args.shape.n, kGradientOutputs), inputs(args.shape.k, kGradientInputs);
  team.ParallelFor(outputs.blocks() * inputs.blocks(), [&](int64_t block) {
    const int64_t output_block = block / inputs.blocks(), input_block = block % inputs.blocks();
    const int64_t output = outputs.begin(output_block), input = inputs.begin(input_block);
    cpu::Multiply(TransposedProduct{.rows = outputs.size(output_block),
                                    .columns = inputs.size(input_block),
                                    .depth = args.x.rows(),
                                    .a_stride = args.shape.n,
                                    .b_stride = args.shape.k,
                                    .y_stride = args.shape.k,
                                    .type = args.shape.compute,
                                    .result = args.accumulate == Accumulate::kAdd ? Result::kAddTo : Result::kWrite},
                  At(args.dy, 0, output), At(args.x, 0, input),
                  reinterpret_cast<float*>(At(args.dweight, output, input)));
  });
  BiasGradient(team, args);
}

}  // namespace sluice::cpu::library
