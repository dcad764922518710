// What several layers are made of: a norm, a linear and dropout on a layer's views, and the ends of what is split over
// a tensor-parallel group.
#pragma once

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "base/philox.h"
#include "stages/layer.h"

namespace sluice {

// A norm of the input: its parameters are the layer's first ones, gamma and (LayerNorm) beta.
class NormPart {
 public:
  explicit NormPart(const Node& node)
      : kind_(node.norm == Normalization::kLayerNorm ? NormKind::kLayerNorm : NormKind::kRmsNorm),
        epsilon_(node.norm_epsilon) {}

  int parameters() const { return kind_ == NormKind::kLayerNorm ? 2 : 1; }
  LayerTensor Mean(Lifetime lifetime) const {
    return {lifetime, DType::kF32, kind_ == NormKind::kLayerNorm ? 1 : 0, TensorRows::kSlice};
  }
  LayerTensor Rstd(Lifetime lifetime) const { return {lifetime, DType::kF32, 1, TensorRows::kSlice}; }

  void Forward(const LayerCall& call, TensorView mean, TensorView rstd, TensorView y) const {
    call.operations.NormForward(call.stream, {.kind = kind_,
                                              .epsilon = epsilon_,
                                              .x = call.x,
                                              .gamma = call.parameters[0].value,
                                              .beta = Beta(call.parameters[1].value),
                                              .y = y,
                                              .mean = Vector(mean),
                                              .rstd = Vector(rstd)});
  }
  // dx of the call = gradient of the norm + `add`, which came around it.
  void InputGradient(const LayerCall& call, TensorView mean, TensorView rstd, TensorView dy, TensorView add) const {
    call.operations.NormInputGradient(call.stream, {.kind = kind_,
                                                    .dy = dy,
                                                    .x = call.x,
                                                    .gamma = call.parameters[0].value,
                                                    .mean = Vector(mean),
                                                    .rstd = Vector(rstd),
                                                    .add = add,
                                                    .dx = call.dx});
  }
  void WeightGradient(const LayerCall& call, TensorView mean, TensorView rstd, TensorView dy) const {
    call.operations.NormWeightGradient(call.stream, {.kind = kind_,
                                                     .dy = dy,
                                                     .x = call.x,
                                                     .mean = Vector(mean),
                                                     .rstd = Vector(rstd),
                                                     .dgamma = call.parameters[0].gradient,
                                                     .dbeta = Beta(call.parameters[1].gradient),
                                                     .accumulate = call.accumulate});
  }

 private:
  TensorView Beta(const TensorView& view) const { return kind_ == NormKind::kLayerNorm ? view : TensorView{}; }
  static TensorView Vector(TensorView view) {
    if (view) view.shape = {view.elements()};
    return view;
  }

  NormKind kind_;
  float epsilon_;
};

enum class Bias : uint8_t {
  kNone,
  kAdded,
  kElsewhere,  // another shard adds it; its gradient is made here too
};
constexpr Bias BiasIf(bool has_one) { return has_one ? Bias::kAdded : Bias::kNone; }

// y = x . weight^T (+ bias): its parameters are the layer's `first` one and, with a bias, the one after.
class LinearPart {
 public:
  LinearPart(int64_t n, int64_t k, DType compute, int first, Bias bias)
      : shape_{.n = n, .k = k, .compute = compute}, first_(first), bias_(bias) {}

  int parameters() const { return bias_ == Bias::kNone ? 1 : 2; }

  void Forward(const LayerCall& call, TensorView x, TensorView add, TensorView y) const {
    LinearShape shape = shape_;
    shape.packed_for = call.packed_for;
    call.operations.LinearForward(call.stream,
                                  {.shape = shape,
                                   .x = x,
                                   .packed = call.parameters[first_].packed,
                                   .bias = bias_ == Bias::kAdded ? call.parameters[first_ + 1].value : TensorView{},
                                   .add = add,
                                   .y = y});
  }
  void InputGradient(const LayerCall& call, TensorView dy, TensorView dx) const {
    call.operations.LinearInputGradient(
        call.stream, {.shape = shape_, .dy = dy, .packed = call.parameters[first_].packed, .dx = dx});
  }
  void WeightGradient(const LayerCall& call, TensorView x, TensorView dy) const {
    WeightGradient(call, x, dy, call.accumulate);
  }
  void WeightGradient(const LayerCall& call, TensorView x, TensorView dy, Accumulate accumulate) const {
    call.operations.LinearWeightGradient(
        call.stream, {.shape = shape_,
                      .x = x,
                      .dy = dy,
                      .dweight = call.parameters[first_].gradient,
                      .dbias = parameters() == 2 ? call.parameters[first_ + 1].gradient : TensorView{},
                      .accumulate = accumulate});
  }

 private:
  LinearShape shape_;
  int first_;
  Bias bias_;
};

// Dropout of a layer's output; its mask is keyed by the layer's name.
class DropoutPart {
 public:
  explicit DropoutPart(const Node& node) : rate_(node.dropout), name_(HashName(absl::StrCat(node.name, ".dropout"))) {}

  bool Active(const LayerCall& call) const { return rate_ > 0 && call.training; }
  // Whether the incoming gradient has to be masked into a tensor of its own.
  bool exists() const { return rate_ > 0; }
  // y = add + masked x, of all tokens or this shard's slice of them; y may be x.
  void Apply(const LayerCall& call, TensorView x, TensorView add, TensorView y) const {
    const int64_t tokens = call.rows * call.sequence;
    const bool all = call.group == nullptr || x.rows() == tokens;
    call.operations.Dropout(call.stream,
                            {.key = {.seed = call.seed, .name = name_, .step = call.step},
                             .rate = rate_,
                             .samples = call.batch.samples,
                             .sequence = call.sequence,
                             .first_token = all ? 0 : ShareOf(tokens, call.group->size(), call.group->index()).begin,
                             .x = x,
                             .add = add,
                             .y = y});
  }

 private:
  float rate_;
  uint64_t name_;
};

// The ends of what is split over a tensor-parallel group. Outside of them each shard has all tokens, or, with sequence
// parallelism, its slice of them; between them it has all tokens, of which it makes partial sums. Without a group all
// of this does nothing.
class SplitEnds {
 public:
  SplitEnds(int64_t channels, DType compute, const TensorParallel& tensor)
      : channels_(channels), compute_(compute), split_(tensor.size > 1), slices_(split_ && tensor.sequence_parallel) {}

  bool split() const { return split_; }
  // Whether a slice of the tokens is what lies outside.
  bool slices() const { return slices_; }

  // Room that the ends need: for the exchange, and for partial sums of all tokens where only a slice goes out.
  LayerTensor Exchange() const { return {Lifetime::kScratch, compute_, split_ ? channels_ : 0, TensorRows::kExchange}; }
  LayerTensor Partial() const { return {Lifetime::kScratch, compute_, slices_ ? channels_ : 0}; }

  // Of a tensor of all tokens, the rows that lie outside.
  TensorView Outside(const LayerCall& call, TensorView all) const { return slices_ ? call.group->Mine(all) : all; }
  // Brings all tokens together, of which Outside() has been written.
  void Gather(const LayerCall& call, TensorView all) const {
    if (slices_) call.group->AllGather(call.stream, call.group->Mine(all), all);
  }
  // Where partial sums are to be written that become `outside`.
  TensorView PartialOf(TensorView outside, TensorView partial) const { return slices_ ? partial : outside; }
  // Sums PartialOf(outside, partial) over the shards.
  void Reduce(const LayerCall& call, TensorView outside, TensorView partial, TensorView exchange) const {
    if (slices_) {
      call.group->ReduceScatter(call.operations, call.stream, partial, /*add=*/{}, outside, exchange);
    } else if (split_) {
      call.group->AllReduce(call.operations, call.stream, outside, exchange);
    }
  }

 private:
  int64_t channels_;
  DType compute_;
  bool split_, slices_;
};

// The gradient that arrives behind a layer's dropout, of all tokens: dy itself, or a tensor made of it.
class ArrivingPart {
 public:
  ArrivingPart(const Node& node, DType compute, const TensorParallel& tensor)
      : dropout_(node), ends_(node.channels, compute, tensor) {
    tensor_ = {Lifetime::kGradient, compute, dropout_.exists() || ends_.slices() ? node.channels : 0};
  }

  LayerTensor Tensor() const { return tensor_; }
  void Make(const LayerCall& call, TensorView tensor) const {
    if (dropout_.Active(call)) {
      dropout_.Apply(call, call.dy, {}, ends_.Outside(call, tensor));
      ends_.Gather(call, tensor);
    } else if (ends_.slices()) {
      call.group->AllGather(call.stream, call.dy, tensor);
    }
  }
  TensorView View(const LayerCall& call, TensorView tensor) const {
    return dropout_.Active(call) || ends_.slices() ? tensor : call.dy;
  }

 private:
  DropoutPart dropout_;
  SplitEnds ends_;
  LayerTensor tensor_;
};

// What a block adds to its input: y = x + dropout(projection(z)), with z as wide as `width`, this shard's part of it.
class ResidualPart {
 public:
  ResidualPart(const Node& node, int64_t width, DType compute, int first, const TensorParallel& tensor)
      : projection_(node.channels, width, compute, first,
                    !node.bias          ? Bias::kNone
                    : tensor.index == 0 ? Bias::kAdded
                                        : Bias::kElsewhere),
        dropout_(node),
        ends_(node.channels, compute, tensor),
        arriving_(node, compute, tensor) {}

  // What arrives at the projection.
  LayerTensor Dprojected() const { return arriving_.Tensor(); }

  void Forward(const LayerCall& call, TensorView z, TensorView partial, TensorView exchange) const {
    if (!call.y) return;
    if (ends_.split()) return SplitForward(call, z, partial, exchange);
    if (!dropout_.Active(call)) return projection_.Forward(call, z, call.x, call.y);
    projection_.Forward(call, z, {}, call.y);
    dropout_.Apply(call, call.y, call.x, call.y);
  }
  void InputGradient(const LayerCall& call, TensorView dprojected, TensorView dz) const {
    arriving_.Make(call, dprojected);
    projection_.InputGradient(call, arriving_.View(call, dprojected), dz);
  }
  void WeightGradient(const LayerCall& call, TensorView z, TensorView dprojected) const {
    projection_.WeightGradient(call, z, arriving_.View(call, dprojected));
  }

 private:
  // The residual and dropout are done once, with the sum of this shard's tokens.
  void SplitForward(const LayerCall& call, TensorView z, TensorView partial, TensorView exchange) const {
    TensorGroup& group = *call.group;
    const TensorView sums = ends_.PartialOf(call.y, partial);
    const TensorView y = ends_.slices() ? call.y : group.Mine(call.y), x = ends_.slices() ? call.x : group.Mine(call.x);
    projection_.Forward(call, z, {}, sums);
    group.ReduceScatter(call.operations, call.stream, sums, dropout_.Active(call) ? TensorView{} : x, y, exchange);
    if (dropout_.Active(call)) dropout_.Apply(call, y, x, y);
    if (!ends_.slices()) group.AllGather(call.stream, y, call.y);
  }

  LinearPart projection_;
  DropoutPart dropout_;
  SplitEnds ends_;
  ArrivingPart arriving_;
};

}  // namespace sluice
