// A Layer is what one node of the graph does on a device: forward, input gradient and weight gradient as separate
// operations issued on a stream. It holds no memory; the stage hands it views.
//
// What a layer keeps is declared as tensors of so many columns a token; where they lie is planned by the stage
// (stage_layout.h) from what they are for. A layer's backward pass reads its input, its tensors and the incoming
// gradient, never its own output: an output may have been sent away. Threads: immutable after construction.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "kernels/operations.h"
#include "kernels/tensor.h"
#include "stages/graph.h"
#include "stages/tensor_group.h"
#include "stages/tensor_parallel.h"

namespace sluice {

// Why a layer has a tensor, and so how long it lives.
enum class Lifetime : uint8_t {
  kKept,      // F to I and W, whatever is recomputed: small, or not worth it
  kSaved,     // F to I and W; full recomputation makes it again
  kCheap,     // F to W, not read by I; selective recomputation makes it again from input and saved tensors
  kGradient,  // I to W
  kScratch,   // within one call
};

// How many rows a layer's tensor has. The second and third differ from the first only in a tensor-parallel group.
enum class TensorRows : uint8_t {
  kAll,       // one for each token of the micro-batch
  kSlice,     // one for each token of what enters the layer: of this shard's slice, with sequence parallelism
  kExchange,  // what a TensorGroup needs to exchange a tensor of all tokens
};

struct LayerTensor {
  Lifetime lifetime = Lifetime::kScratch;
  DType dtype = DType::kF32;
  int64_t columns = 0;  // elements per token; 0: not needed with these options
  TensorRows rows = TensorRows::kAll;
  int64_t rows_max = 0;  // tokens it has room for, of a layer that works through them in chunks; 0: all
};
inline constexpr int kMaxLayerTensors = 12;
inline constexpr int kMaxLayerParameters = 6;

// One parameter as a layer sees it.
struct ParameterViews {
  TensorView value;     // f32
  TensorView packed;    // of a linear's weight
  TensorView gradient;  // f32, this use's partial sum of the micro-batch's gradient group
};

// Device copies of a micro-batch's facts; absent where no layer of the stage reads them.
struct BatchViews {
  TensorView tokens;     // [M] i32
  TensorView targets;    // [M] i32
  TensorView positions;  // [M] i32
  TensorView first_key;  // [M] i32
  TensorView samples;    // [B] i32
  TensorView sequences;  // [M] i32
};

// What a stage keeps between the calls of generation. Absent in all else.
struct CacheViews {
  TensorView keys_and_values;  // this layer's (Operations::KeyValueCacheBytes)
  int64_t sequences = 0;
  int64_t context = 0;
};
// What the head draws tokens with, after those of logits_of (SampleTokensArgs); absent: nothing is drawn.
struct DrawViews {
  TensorView sequences;
  TensorView positions;
  TensorView rules;
  TensorView seen;
  TensorView tokens;
};

// Everything a layer's operation works on. Absent views: y when a recomputing forward pass needn't make the output, dx
// when nothing comes before the layer.
struct LayerCall {
  const Operations& operations;
  Stream& stream;
  TensorGroup* group = nullptr;  // of a layer that is split over shards, or stands on each of them; else null
  int64_t rows = 0;              // B
  int64_t sequence = 0;          // T
  // With sequence parallelism the M of x, y, dy and dx are this shard's slice of the B*T tokens.
  TensorView x;                                                // [M, columns in] compute
  TensorView y;                                                // [M, columns out] compute
  TensorView dy;                                               // [M, columns out] compute
  TensorView dx;                                               // [M, columns in] compute
  std::array<TensorView, kMaxLayerTensors> tensors;            // [rows, columns], as declared by Tensors()
  std::array<ParameterViews, kMaxLayerParameters> parameters;  // as declared by Parameters(graph, node)
  BatchViews batch;
  CacheViews cache;
  DrawViews draw;
  PackedFor packed_for = PackedFor::kTraining;  // weights
  Accumulate accumulate = Accumulate::kAdd;
  bool training = true;  // false: no dropout, and the loss in the forward pass
  uint64_t seed = 0;     // of the run's random numbers
  uint32_t step = 0;
  float loss_scale = 0;
  TensorView loss;  // [1] f32: sum over the micro-batch's valid targets
  // Without training: the tokens whose logits are wanted in place of the loss, and where they go; else absent.
  absl::Span<const int32_t> logits_of;
  TensorView logits;  // [tokens wanted, V] f32
};

class Layer {
 public:
  virtual ~Layer() = default;
  // At most kMaxLayerTensors, always in the same order.
  virtual std::vector<LayerTensor> Tensors() const = 0;
  // Makes y and all saved and cheap tensors. Without y it may stop once those are made. A loss is made here only if
  // nothing is trained, else by InputGradient.
  virtual void Forward(const LayerCall& call) const = 0;
  // Makes the cheap tensors again from x and the saved ones.
  virtual void RecomputeCheap(const LayerCall& call) const {}
  // Makes dx (if wanted) and the gradient tensors. A layer may write or add the gradients of its parameters here.
  virtual void InputGradient(const LayerCall& call) const = 0;
  // Writes or adds the gradients of the parameters.
  virtual void WeightGradient(const LayerCall& call) const = 0;
};

// Of a shard's node that keeps keys and values, in generation; one of another kind has no heads.
CacheShape CacheShapeOf(const Node& shard, DType compute, int64_t sequences, int64_t context);

// A shard's layer of the node's kind, from the table in layers/registry.cc.
std::unique_ptr<Layer> NewLayer(const Node& node, DType compute, const TensorParallel& tensor = {});

}  // namespace sluice
