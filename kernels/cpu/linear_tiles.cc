#include "kernels/cpu/linear_backends.h"
#include "kernels/cpu/tile_packing.h"
#include "kernels/cpu/tile_product.h"

namespace sluice::cpu::tiles {
namespace {

// Rows and columns of a block of a product, the depth that is multiplied in one go, and the pieces of a larger one: the
// left-hand side of a block, its sums and what is ahead of the right-hand side stay in a second-level cache of 2 MiB,
// and a weight, which comes from memory, is read once for all rows of a usual micro-batch.
constexpr int64_t kRows = 512;
constexpr int64_t kColumns = 512;
constexpr int64_t kDepthWhole = 1024;
constexpr int64_t kDepthPiece = 640;
// Outputs and inputs of a block of a weight gradient, how many outputs are packed before they are multiplied, and the
// rows that are summed in one go.
constexpr int64_t kGradientOutputs = 384;
constexpr int64_t kGradientInputs = 768;
constexpr int64_t kOutputsPacked = 3072;
constexpr int64_t kGradientRows = 1024;

// How a result is cut for a team: into blocks as large as `rows` x `columns`, smaller where there would be fewer blocks
// than threads. Bits don't depend on it: an element's sum is the same in any block.
struct Cut {
  Cut(int64_t row_count, int64_t most_rows, int64_t column_count, int64_t most_columns, int threads)
      : rows(row_count, most_rows), columns(column_count, most_columns) {
    while (blocks() < threads && std::max(rows.width, columns.width) > 2 * kStep) {
      Split& larger = rows.width > columns.width ? rows : columns;
      larger = Split(larger.count, larger.width / 2);
    }
  }
  int64_t blocks() const { return rows.blocks() * columns.blocks(); }
  Split rows;
  Split columns;
};

int64_t BytesOf(const PackedUse& use) { return PackedElements(use.columns(), use.depth()) * SizeOf(DType::kBF16); }
int64_t Offset(const PackedUse& use) { return use.use == Use::kForward ? 0 : BytesOf({use.shape, Use::kForward}); }

template <class T>
T* Scratch(ScratchSlot slot, int64_t elements) {
  return reinterpret_cast<T*>(ThreadScratch(slot, elements * static_cast<int64_t>(sizeof(T))));
}

// This thread's memory for a block of a product.
struct BlockScratch {
  BlockScratch(int64_t rows, int64_t columns, int64_t depth) {
    const int64_t left_elements = PackedElements(rows, depth);
    std::byte* memory = ThreadScratch(
        ScratchSlot::kOperation, left_elements * SizeOf(DType::kBF16) + SumFloats(rows, columns) * SizeOf(DType::kF32));
    left = reinterpret_cast<BFloat16*>(memory);
    sums = reinterpret_cast<float*>(memory + left_elements * SizeOf(DType::kBF16));
  }
  BFloat16* left;
  float* sums;
};

// The left-hand side of a piece of the depth: where it is, unless rows or depth leave a part of a step.
void SetLeft(const TensorView& x, int64_t row, int64_t depth_begin, int64_t depth, BFloat16* scratch,
             Product* product) {
  const Block<const BFloat16> source = BlockAt<const BFloat16>(x, row, depth_begin);
  if (depth % kStep != 0) {
    PackLeft({product->rows, depth}, source, scratch);
    product->left = Left::Packed(scratch, depth);
    return;
  }
  product->left = Left::InPlace(source.data, source.stride);
  const int64_t whole = product->rows / kStep * kStep;
  if (whole == product->rows) return;
  PackLeft({product->rows - whole, depth}, {source.data + whole * source.stride, source.stride}, scratch);
  product->tail = scratch;
}

void MultiplyBlock(const PackedProductArgs& args, int64_t row, int64_t rows, int64_t column, int64_t columns) {
  const int64_t depth = args.use.depth();
  const Split pieces(depth, depth <= kDepthWhole ? depth : kDepthPiece);
  const Session session;
  const BlockScratch scratch(rows, columns, pieces.width);
  const auto* right = reinterpret_cast<const BFloat16*>(args.packed + Offset(args.use)) + PackedElements(column, depth);
  for (int64_t piece = 0; piece < pieces.blocks(); ++piece) {
    Product product{.rows = rows,
                    .columns = columns,
                    .steps = Steps(pieces.size(piece)),
                    .right = right + pieces.begin(piece) / kStep * kStepElements,
                    .right_stride = Steps(depth) * kStepElements,
                    .sums = scratch.sums,
                    .first = piece == 0,
                    .last = piece + 1 == pieces.blocks(),
                    .target = {.y = At(args.y, row, column),
                               .y_type = args.y.dtype,
                               .y_stride = args.y.columns(),
                               .bias = args.bias == nullptr ? nullptr : args.bias + column,
                               .add = args.add ? At(args.add, row, column) : nullptr,
                               .add_type = args.add.dtype,
                               .add_stride = args.y.columns()}};
    SetLeft(args.x, row, pieces.begin(piece), pieces.size(piece), scratch.left, &product);
    cpu::tiles::Multiply(product);
  }
}

// A weight gradient's sums over a piece of the rows. dy^T, of some outputs at a time, and x are packed once for all
// blocks, into memory of the calling thread that its team shares.
class GradientPiece {
 public:
  GradientPiece(Team& team, const LinearWeightGradientArgs& args, Range rows, Accumulate accumulate)
      : team_(team), args_(args), rows_(rows), accumulate_(accumulate), some_(args.shape.n, kOutputsPacked) {
    x_ = Scratch<BFloat16>(ScratchSlot::kOuter, (Steps(args.shape.k) + Steps(some_.width)) * group_elements_);
    dy_ = x_ + Steps(args.shape.k) * group_elements_;
  }

  void Run() const {
    ForEachPair(args_.shape.k, [&](Range inputs) {
      PackRight({rows_.count, inputs.count}, BlockAt<const BFloat16>(args_.x, rows_.begin, inputs.begin),
                x_ + inputs.begin / kStep * group_elements_);
    });
    for (int64_t s = 0; s < some_.blocks(); ++s) MultiplySome({some_.begin(s), some_.size(s)});
  }

 private:
  // Two groups of columns at a time: rows are read in pairs of cache lines.
  template <class Body>
  void ForEachPair(int64_t columns, Body body) const {
    const Split pairs(columns, 2 * kStep);
    team_.ParallelFor(pairs.blocks(), [&](int64_t pair) { body({pairs.begin(pair), pairs.size(pair)}); });
  }

  void MultiplySome(Range some) const {
    ForEachPair(some.count, [&](Range pair) {
      const Range outputs{some.begin + pair.begin, pair.count};
      PackLeftTransposed({rows_.count, pair.count}, BlockAt<const BFloat16>(args_.dy, rows_.begin, outputs.begin),
                         dy_ + pair.begin / kStep * group_elements_);
      if (args_.dbias) BiasGradient(args_, rows_, outputs, accumulate_);
    });
    const Cut cut(some.count, kGradientOutputs, args_.shape.k, kGradientInputs, team_.size());
    const Split &outputs = cut.rows, &inputs = cut.columns;
    team_.ParallelFor(cut.blocks(), [&](int64_t block) {
      const int64_t o = block / inputs.blocks(), i = block % inputs.blocks();
      MultiplyBlock(dy_ + outputs.begin(o) / kStep * group_elements_, {some.begin + outputs.begin(o), outputs.size(o)},
                    {inputs.begin(i), inputs.size(i)});
    });
  }

  void MultiplyBlock(const BFloat16* dy, Range outputs, Range inputs) const {
    const Session session;
    std::byte* const y = At(args_.dweight, outputs.begin, inputs.begin);
    cpu::tiles::Multiply({.rows = outputs.count,
                          .columns = inputs.count,
                          .steps = Steps(rows_.count),
                          .left = Left::Packed(dy, rows_.count),
                          .right = x_ + inputs.begin / kStep * group_elements_,
                          .right_stride = group_elements_,
                          .sums = Scratch<float>(ScratchSlot::kOperation, 2 * kStepElements),
                          .walk = Walk::kAlongRows,
                          .target = {.y = y,
                                     .y_stride = args_.shape.k,
                                     .add = accumulate_ == Accumulate::kAdd ? y : nullptr,
                                     .add_stride = args_.shape.k}});
  }

  Team& team_;
  const LinearWeightGradientArgs& args_;
  const Range rows_;
  const Accumulate accumulate_;
  const Split some_;
  const int64_t group_elements_ = Steps(rows_.count) * kStepElements;
  BFloat16* x_;   // groups of inputs
  BFloat16* dy_;  // groups of some outputs
};

}  // namespace

int64_t PackedLinearBytes(const LinearShape& shape) {
  const bool forward_only = shape.packed_for == PackedFor::kInference;
  return BytesOf({shape, Use::kForward}) + (forward_only ? 0 : BytesOf({shape, Use::kInputGradient}));
}

void PackLinear(Team& team, const LinearShape& shape, const float* weight, std::byte* packed) {
  const PackedWeight packed_weight{
      .weight = weight,
      .outputs = shape.n,
      .inputs = shape.k,
      .forward = reinterpret_cast<BFloat16*>(packed),
      .input_gradient = shape.packed_for == PackedFor::kInference
                            ? nullptr
                            : reinterpret_cast<BFloat16*>(packed + Offset({shape, Use::kInputGradient}))};
  team.ParallelFor(Steps(shape.n), [&](int64_t group) { PackWeightGroup(packed_weight, group * kStep); });
}

void Multiply(Team& team, const PackedProductArgs& args) {
  const Cut cut(args.x.rows(), kRows, args.use.columns(), kColumns, team.size());
  // Row blocks vary fastest: threads that work at the same time share the weight's columns.
  team.ParallelFor(cut.blocks(), [&](int64_t block) {
    const int64_t r = block % cut.rows.blocks(), c = block / cut.rows.blocks();
    MultiplyBlock(args, cut.rows.begin(r), cut.rows.size(r), cut.columns.begin(c), cut.columns.size(c));
  });
}

void WeightGradient(Team& team, const LinearWeightGradientArgs& args) {
  const Split pieces(args.x.rows(), kGradientRows);
  for (int64_t piece = 0; piece < pieces.blocks(); ++piece) {
    GradientPiece(team, args, {pieces.begin(piece), pieces.size(piece)}, piece > 0 ? Accumulate::kAdd : args.accumulate)
        .Run();
  }
}

}  // namespace sluice::cpu::tiles
