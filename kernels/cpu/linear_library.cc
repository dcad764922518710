#include "kernels/cpu/linear_backends.h"
#include "kernels/cpu/onednn.h"

namespace sluice::cpu::library {
namespace {

// Rows and columns of a block of a product; outputs and inputs of one of a weight gradient. Smaller blocks multiply
// slower, larger ones leave threads without work on small micro-batches.
constexpr int64_t kRows = 128;
constexpr int64_t kColumns = 512;
constexpr int64_t kGradientOutputs = 128;
constexpr int64_t kGradientInputs = 512;

// A packed weight: the column blocks of the forward product, then those of the input gradient.
class Layout {
 public:
  explicit Layout(const PackedUse& use) : use_(use), split_(use.columns(), kColumns) {}
  const Split& split() const { return split_; }
  RightMatrix matrix(int64_t block) const { return {use_.depth(), split_.size(block), use_.shape.compute}; }
  int64_t offset(int64_t block) const {
    const int64_t before = use_.use == Use::kForward ? 0 : Layout({use_.shape, Use::kForward}).bytes();
    return before + block * BlockBytes(0);
  }
  int64_t bytes() const { return (split_.blocks() - 1) * BlockBytes(0) + BlockBytes(split_.blocks() - 1); }

 private:
  int64_t BlockBytes(int64_t block) const { return RoundUp(PackedBytes(matrix(block)), 64); }

  PackedUse use_;
  Split split_;
};

// The library adds to what stands in y: bring `add` there first.
void CopyAddend(const PackedProductArgs& args, Extent extent, int64_t row, int64_t column) {
  WithType(args.add.dtype, [&]<class From>(From) {
    WithType(args.y.dtype, [&]<class To>(To) {
      ConvertRows(extent, BlockAt<const From>(args.add, row, column), BlockAt<To>(args.y, row, column));
    });
  });
}

}  // namespace

int64_t PackedLinearBytes(const LinearShape& shape) {
  return Layout({shape, Use::kForward}).bytes() + Layout({shape, Use::kInputGradient}).bytes();
}

void PackLinear(Team& team, const LinearShape& shape, const float* weight, std::byte* packed) {
  for (const Use kind : {Use::kForward, Use::kInputGradient}) {
    const PackedUse use{shape, kind};
    const Layout layout(use);
    team.ParallelFor(layout.split().blocks(), [&](int64_t block) {
      Pack(layout.matrix(block), weight + layout.split().begin(block) * use.column_stride(),
           {use.depth_stride(), use.column_stride()}, packed + layout.offset(block));
    });
  }
}

void Multiply(Team& team, const PackedProductArgs& args) {
  const Layout layout(args.use);
  const Split rows(args.x.rows(), kRows);
  const Split& columns = layout.split();
  // Row blocks vary fastest: threads that work at the same time share the weight's columns.
  team.ParallelFor(rows.blocks() * columns.blocks(), [&](int64_t block) {
    const int64_t row_block = block % rows.blocks(), column_block = block / rows.blocks();
    const int64_t row = rows.begin(row_block), column = columns.begin(column_block);
    const Extent extent{rows.size(row_block), columns.size(column_block)};
    if (args.add && args.add.data != args.y.data) CopyAddend(args, extent, row, column);
    cpu::Multiply(RightProduct{.right = layout.matrix(column_block),
                               .rows = extent.rows,
                               .x_stride = args.x.columns(),
                               .y_stride = args.y.columns(),
                               .y_type = args.y.dtype,
                               .has_bias = args.bias != nullptr,
                               .result = args.add ? Result::kAddTo : Result::kWrite},
                  At(args.x, row, 0), args.packed + layout.offset(column_block),
                  args.bias == nullptr ? nullptr : args.bias + column, At(args.y, row, column));
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
}

}  // namespace sluice::cpu::library
