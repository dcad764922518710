#include "kernels/cpu/linear_backends.h"
#include "kernels/cpu/panel_product.h"
#include "kernels/cpu/work_split.h"

namespace sluice::cpu::panels {
namespace {

// Rows and columns of a block of a product, and outputs, inputs and tokens of one of a weight gradient: the left-hand
// side of a block stays in the second-level cache, and is used often enough to be worth packing.
constexpr int64_t kRows = 128;
constexpr int64_t kColumns = 512;
constexpr int64_t kGradientOutputs = 384;
constexpr int64_t kGradientInputs = 512;
constexpr int64_t kGradientDepth = 512;
// Between rows of results, so that they don't fall into the same sets of the cache.
constexpr int64_t kPadding = 16;

float* Scratch(int64_t floats) {
  return reinterpret_cast<float*>(ThreadScratch(ScratchSlot::kOperation, floats * SizeOf(DType::kF32)));
}

// A packed weight: panels of the forward product, then those of the input gradient.
int64_t FloatsOf(const PackedUse& use) { return PanelFloats(use.depth(), use.columns()); }
int64_t FirstFloat(const PackedUse& use) { return use.use == Use::kForward ? 0 : FloatsOf({use.shape, Use::kForward}); }

// Packs the outputs [begin, end), in training for both uses: columns of whole panels forward, and a part of the depth
// of all panels of the input gradient. The weight is read once.
void PackOutputs(const LinearShape& shape, const float* weight, int64_t begin, int64_t end, float* packed) {
  const int64_t count = end - begin, width = PanelWidth();
  const float* rows = weight + begin * shape.k;
  if (shape.compute != DType::kF32) {
    float* rounded = Scratch(count * shape.k);
    RoundRows({count, shape.k}, {rows, shape.k}, {rounded, shape.k});
    rows = rounded;
  }
  const PackedUse forward{shape, Use::kForward}, gradient{shape, Use::kInputGradient};
  PackPanels(shape.k, count, PanelSource<float>{rows, 1, shape.k}, packed + FirstFloat(forward) + begin * shape.k,
             shape.k * width);
  if (shape.packed_for == PackedFor::kInference) return;
  PackPanels(count, shape.k, PanelSource<float>{rows, shape.k, 1}, packed + FirstFloat(gradient) + begin * width,
             shape.n * width);
}

struct ProductBlock {
  Extent extent;
  int64_t row;
  int64_t column;
};

int64_t Tiles(int64_t rows) { return (rows + TileRows() - 1) / TileRows(); }

// One block of the product into `y`, the depth in pieces of kPanelDepth.
void MultiplyBlock(const PackedProductArgs& args, const ProductBlock& block, Block<const float> before, float* tiles,
                   Block<float> y) {
  const int64_t depth = args.use.depth(), tile_stride = TileFloats(kPanelDepth);
  PanelProduct product{
      .rows = block.extent.rows,
      .columns = block.extent.columns,
      .a = tiles,
      .a_row_stride = 1,
      .a_depth_stride = TileRows(),
      .a_tile_stride = tile_stride,
      .panels = reinterpret_cast<const float*>(args.packed) + FirstFloat(args.use) + block.column * depth,
      .panel_stride = depth * PanelWidth(),
      .before = before.data,
      .before_stride = before.stride,
      .y = y.data,
      .y_stride = y.stride};
  for (int64_t d = 0; d < depth; d += kPanelDepth) {
    product.depth = std::min(kPanelDepth, depth - d);
    WithType(args.x.dtype, [&]<class T>(T) {
      const auto x = BlockAt<const T>(args.x, block.row, d);
      PackTiles(product.depth, product.rows, PanelSource<T>{x.data, 1, x.stride}, tiles, tile_stride);
    });
    const int64_t next = std::min(kPanelDepth, depth - d - product.depth), size = SizeOf(args.x.dtype);
    product.next = {At(args.x, block.row, d + kPanelDepth), args.x.columns() * size, product.rows, next * size};
    if (next == 0 && args.bias != nullptr) product.bias = args.bias + block.column;
    cpu::Multiply(product);
    product.panels += kPanelDepth * PanelWidth();
    product.before = y.data;
    product.before_stride = y.stride;
  }
}

void RunBlock(const PackedProductArgs& args, const ProductBlock& block) {
  const Extent extent = block.extent;
  const int64_t left_floats = Tiles(kRows) * TileFloats(kPanelDepth);
  const bool f32_addend = !args.add || args.add.dtype == DType::kF32;
  if (args.y.dtype == DType::kF32 && f32_addend) {
    const auto before = args.add ? BlockAt<const float>(args.add, block.row, block.column) : Block<const float>();
    return MultiplyBlock(args, block, before, Scratch(left_floats), BlockAt<float>(args.y, block.row, block.column));
  }
  float* scratch = Scratch(left_floats + kRows * (kColumns + kPadding));
  const Block<float> result{scratch + left_floats, kColumns + kPadding};
  MultiplyBlock(args, block, {}, scratch, result);
  const Block<const float> sums{result.data, result.stride};
  WithType(args.y.dtype, [&]<class T>(T) {
    const auto y = BlockAt<T>(args.y, block.row, block.column);
    if (args.add) {
      AddRows(extent, sums, BlockAt<const BFloat16>(args.add, block.row, block.column), y);
    } else {
      ConvertRows(extent, sums, y);
    }
  });
}

struct GradientExtent {
  int64_t output;
  int64_t outputs;
  int64_t input;
  int64_t inputs;
};

// A block of dweight: sums over the tokens in pieces of kGradientDepth. dy is packed for the block, x one panel at a
// time, just before its use; what is next of it is on its way during the product.
template <class T>
void GradientBlock(const LinearWeightGradientArgs& args, const GradientExtent& block) {
  const int64_t tokens = args.x.rows(), width = PanelWidth(), size = SizeOf(args.x.dtype);
  const int64_t depth_most = std::min(tokens, kGradientDepth), tile_stride = TileFloats(depth_most);
  const int64_t tile_floats = Tiles(block.outputs) * tile_stride;
  float* tiles = Scratch(tile_floats + depth_most * width);
  float* panel = tiles + tile_floats;
  for (int64_t token = 0; token < tokens; token += depth_most) {
    const int64_t depth = std::min(depth_most, tokens - token);
    const auto dy = BlockAt<const T>(args.dy, token, block.output);
    PackTiles(depth, block.outputs, PanelSource<T>{dy.data, dy.stride, 1}, tiles, tile_stride);
    for (int64_t column = 0; column < block.inputs; column += width) {
      const auto x = BlockAt<const T>(args.x, token, block.input + column);
      const auto dweight = BlockAt<float>(args.dweight, block.output, block.input + column);
      const int64_t columns = std::min(width, block.inputs - column);
      PackPanels(depth, columns, PanelSource<T>{x.data, x.stride, 1}, panel, depth * width);
      const bool add = token > 0 || args.accumulate == Accumulate::kAdd;
      cpu::Multiply({.rows = block.outputs,
                     .columns = columns,
                     .depth = depth,
                     .a = tiles,
                     .a_row_stride = 1,
                     .a_depth_stride = TileRows(),
                     .a_tile_stride = tile_stride,
                     .panels = panel,
                     .panel_stride = depth * width,
                     .before = add ? dweight.data : nullptr,
                     .before_stride = dweight.stride,
                     .y = dweight.data,
                     .y_stride = dweight.stride,
                     .next = {x.data + width, x.stride * size, depth, width * size}});
    }
  }
}

}  // namespace

int64_t PackedLinearBytes(const LinearShape& shape) {
  const bool forward_only = shape.packed_for == PackedFor::kInference;
  return (FloatsOf({shape, Use::kForward}) + (forward_only ? 0 : FloatsOf({shape, Use::kInputGradient}))) *
         SizeOf(DType::kF32);
}

void PackLinear(Team& team, const LinearShape& shape, const float* weight, std::byte* packed) {
  ForEachBlock(team, shape.n, 64, [&](int64_t begin, int64_t end) {
    PackOutputs(shape, weight, begin, end, reinterpret_cast<float*>(packed));
  });
}

void Multiply(Team& team, const PackedProductArgs& args) {
  const Split rows(args.x.rows(), kRows), columns(args.use.columns(), kColumns);
  // Row blocks vary fastest: threads that work at the same time share the weight's columns.
  team.ParallelFor(rows.blocks() * columns.blocks(), [&](int64_t block) {
    const int64_t row_block = block % rows.blocks(), column_block = block / rows.blocks();
    RunBlock(args,
             {{rows.size(row_block), columns.size(column_block)}, rows.begin(row_block), columns.begin(column_block)});
  });
}

void WeightGradient(Team& team, const LinearWeightGradientArgs& args) {
  const Split outputs(args.shape.n, kGradientOutputs), inputs(args.shape.k, kGradientInputs);
  team.ParallelFor(outputs.blocks() * inputs.blocks(), [&](int64_t block) {
    const int64_t output_block = block / inputs.blocks(), input_block = block % inputs.blocks();
    const GradientExtent extent{outputs.begin(output_block), outputs.size(output_block), inputs.begin(input_block),
                                inputs.size(input_block)};
    WithType(args.x.dtype, [&]<class T>(T) { GradientBlock<T>(args, extent); });
  });
  BiasGradient(team, args);
}

}  // namespace sluice::cpu::panels
