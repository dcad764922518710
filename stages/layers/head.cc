// Head and loss in one: cross-entropy of the logits x . weight^T, summed over the micro-batch's valid targets. Its
// gradient is scaled by MicroBatchInfo::loss_scale, which makes the step's loss a mean; nothing else scales it.
//
// Logits of a whole micro-batch exist nowhere: the layer works through it in chunks of kHeadRows tokens. In training it
// does so in the input gradient, where a chunk's logits become loss, gradient, dx and the weight gradient at once, so
// that nothing is kept for later or made twice; forward and weight gradient have nothing left to do.
#include <algorithm>

#include "stages/layers/parts.h"
#include "stages/layers/registry.h"

namespace sluice {
namespace {

TensorView Rows(TensorView view, int64_t begin, int64_t count) {
  const int64_t columns = view.columns();
  return {view.data + begin * columns * SizeOf(view.dtype), view.dtype, {count, columns}};
}

// Elements, not rows.
TensorView Part(TensorView view, int64_t begin, int64_t count) {
  return {view.data + begin * SizeOf(view.dtype), view.dtype, {count}};
}

class HeadLayer final : public Layer {
 public:
  HeadLayer(const Node& node, DType compute)
      : channels_(node.channels),
        vocabulary_(node.vocabulary),
        compute_(compute),
        linear_(vocabulary_, channels_, compute, 0, /*bias=*/false) {}

  std::vector<LayerTensor> Tensors() const override {
    std::vector<LayerTensor> tensors(kTensors);
    tensors[kLogits] = {Lifetime::kScratch, DType::kF32, vocabulary_, kHeadRows};
    // In f32 the gradient is written over the logits.
    tensors[kDlogits] = {Lifetime::kScratch, compute_, compute_ == DType::kF32 ? 0 : vocabulary_, kHeadRows};
    tensors[kLosses] = {Lifetime::kScratch, DType::kF32, 1, kHeadRows};
    tensors[kWanted] = {Lifetime::kScratch, compute_, channels_, kHeadRows};
    return tensors;
  }

  void Forward(const LayerCall& call) const override {
    if (call.training) return;
    if (call.logits) return MakeLogits(call);
    ForEachChunk(call.rows * call.sequence,
                 [&](int64_t begin, int64_t count) { MakeLoss(call, begin, count, /*dlogits=*/{}); });
  }

  void InputGradient(const LayerCall& call) const override {
    ForEachChunk(call.rows * call.sequence, [&](int64_t begin, int64_t count) {
      const TensorView dlogits = Rows(call.tensors[compute_ == DType::kF32 ? kLogits : kDlogits], 0, count);
      MakeLoss(call, begin, count, dlogits);
      if (call.dx) linear_.InputGradient(call, dlogits, Rows(call.dx, begin, count));
      linear_.WeightGradient(call, Rows(call.x, begin, count), dlogits,
                             begin == 0 ? call.accumulate : Accumulate::kAdd);
    });
  }

  void WeightGradient(const LayerCall& call) const override {}

 private:
  enum Tensor { kLogits, kDlogits, kLosses, kWanted, kTensors };
  static_assert(kTensors <= kMaxLayerTensors);

  template <class Body>
  static void ForEachChunk(int64_t rows, const Body& body) {
    for (int64_t begin = 0; begin < rows; begin += kHeadRows) body(begin, std::min(kHeadRows, rows - begin));
  }

  // Of a chunk; without dlogits the loss alone.
  void MakeLoss(const LayerCall& call, int64_t begin, int64_t count, TensorView dlogits) const {
    const TensorView logits = Rows(call.tensors[kLogits], 0, count);
    linear_.Forward(call, Rows(call.x, begin, count), /*add=*/{}, logits);
    call.operations.CrossEntropy(call.stream, {.logits = logits,
                                               .targets = Part(call.batch.targets, begin, count),
                                               .losses = Part(call.tensors[kLosses], 0, count),
                                               .total = call.loss,
                                               .accumulate = begin == 0 ? Accumulate::kOverwrite : Accumulate::kAdd,
                                               .scale = call.loss_scale,
                                               .dlogits = dlogits});
  }

  // Of the tokens wanted alone, which are brought together first.
  void MakeLogits(const LayerCall& call) const {
    ForEachChunk(call.logits.rows(), [&](int64_t begin, int64_t count) {
      const TensorView wanted = Rows(call.tensors[kWanted], 0, count);
      for (int64_t i = 0; i < count; ++i) {
        call.operations.Copy(call.stream, Rows(call.x, call.logits_of[begin + i], 1), Rows(wanted, i, 1));
      }
      linear_.Forward(call, wanted, /*add=*/{}, Rows(call.logits, begin, count));
    });
  }

  const int64_t channels_, vocabulary_;
  const DType compute_;
  const LinearPart linear_;
};

}  // namespace

std::unique_ptr<Layer> NewHead(const Node& node, DType compute) { return std::make_unique<HeadLayer>(node, compute); }

}  // namespace sluice
