// What several layers are made of: a norm, a linear and dropout on a layer's views.
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
  LayerTensor Mean(Lifetime lifetime) const { return {lifetime, DType::kF32, kind_ == NormKind::kLayerNorm ? 1 : 0}; }
  LayerTensor Rstd(Lifetime lifetime) const { return {lifetime, DType::kF32, 1}; }

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

// y = x . weight^T (+ bias): its parameters are the layer's `first` one and, with a bias, the one after.
class LinearPart {
 public:
  LinearPart(int64_t n, int64_t k, DType compute, int first, bool bias)
      : shape_{.n = n, .k = k, .compute = compute}, first_(first), bias_(bias) {}

  int parameters() const { return bias_ ? 2 : 1; }

  void Forward(const LayerCall& call, TensorView x, TensorView add, TensorView y) const {
    call.operations.LinearForward(call.stream, {.shape = shape_,
                                                .x = x,
                                                .packed = call.parameters[first_].packed,
                                                .bias = bias_ ? call.parameters[first_ + 1].value : TensorView{},
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
    call.operations.LinearWeightGradient(call.stream,
                                         {.shape = shape_,
                                          .x = x,
                                          .dy = dy,
                                          .dweight = call.parameters[first_].gradient,
                                          .dbias = bias_ ? call.parameters[first_ + 1].gradient : TensorView{},
                                          .accumulate = accumulate});
  }

 private:
  LinearShape shape_;
  int first_;
  bool bias_;
};

// Dropout of a layer's output; its mask is keyed by the layer's name.
class DropoutPart {
 public:
  explicit DropoutPart(const Node& node) : rate_(node.dropout), name_(HashName(absl::StrCat(node.name, ".dropout"))) {}

  bool Active(const LayerCall& call) const { return rate_ > 0 && call.training; }
  // Whether the incoming gradient has to be masked into a tensor of its own.
  bool exists() const { return rate_ > 0; }
  // y = add + masked x; y may be x.
  void Apply(const LayerCall& call, TensorView x, TensorView add, TensorView y) const {
    call.operations.Dropout(call.stream, {.key = {.seed = call.seed, .name = name_, .step = call.step},
                                          .rate = rate_,
                                          .samples = call.batch.samples,
                                          .x = x,
                                          .add = add,
                                          .y = y});
  }

 private:
  float rate_;
  uint64_t name_;
};

// What a block adds to its input: y = x + dropout(projection(z)), with z as wide as `width`.
class ResidualPart {
 public:
  ResidualPart(const Node& node, int64_t width, DType compute, int first)
      : projection_(node.channels, width, compute, first, node.bias),
        dropout_(node),
        dprojected_{Lifetime::kGradient, compute, dropout_.exists() ? node.channels : 0} {}

  // What arrives at the projection, where dropout lies between it and dy.
  LayerTensor Dprojected() const { return dprojected_; }

  void Forward(const LayerCall& call, TensorView z) const {
    if (!call.y) return;
    if (!dropout_.Active(call)) return projection_.Forward(call, z, call.x, call.y);
    projection_.Forward(call, z, {}, call.y);
    dropout_.Apply(call, call.y, call.x, call.y);
  }
  void InputGradient(const LayerCall& call, TensorView dprojected, TensorView dz) const {
    if (dropout_.Active(call)) dropout_.Apply(call, call.dy, {}, dprojected);
    projection_.InputGradient(call, Arrives(call, dprojected), dz);
  }
  void WeightGradient(const LayerCall& call, TensorView z, TensorView dprojected) const {
    projection_.WeightGradient(call, z, Arrives(call, dprojected));
  }

 private:
  TensorView Arrives(const LayerCall& call, TensorView dprojected) const {
    return dropout_.Active(call) ? dprojected : call.dy;
  }

  LinearPart projection_;
  DropoutPart dropout_;
  LayerTensor dprojected_;
};

}  // namespace sluice
