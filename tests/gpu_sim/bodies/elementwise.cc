#include "kernels/cuda/elementwise.h"

#include <bit>
#include <cmath>

#include "kernels/cpu/activation.h"
#include "kernels/cpu/dropout.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/random_init.h"
#include "kernels/cpu/rope.h"
#include "kernels/cuda/activation.h"
#include "kernels/cuda/dropout.h"
#include "kernels/cuda/random_init.h"
#include "kernels/cuda/rope.h"
#include "tests/gpu_sim/bodies/body.h"

namespace sluice::cuda {
namespace {

void GeluForwardBody(const GeluParams& p) {
  cpu::GeluForward(OneThread(), {.x = Vector(p.x, p.dtype, p.elements), .y = Vector(p.y, p.dtype, p.elements)});
}

void GeluBackwardBody(const GeluParams& p) {
  cpu::GeluBackward(OneThread(), {.x = Vector(p.x, p.dtype, p.elements),
                                  .dy = Vector(p.dy, p.dtype, p.elements),
                                  .dx = Vector(p.y, p.dtype, p.elements)});
}

void SwigluForwardBody(const SwigluParams& p) {
  cpu::SwigluForward(OneThread(), {.gate_up = Matrix(p.gate_up, p.dtype, p.rows, 2 * p.width),
                                   .y = Matrix(p.y, p.dtype, p.rows, p.width)});
}

void SwigluBackwardBody(const SwigluParams& p) {
  cpu::SwigluBackward(OneThread(), {.gate_up = Matrix(p.gate_up, p.dtype, p.rows, 2 * p.width),
                                    .dy = Matrix(p.dy, p.dtype, p.rows, p.width),
                                    .dgate_up = Matrix(p.y, p.dtype, p.rows, 2 * p.width)});
}

void AddBody(const AddParams& p) {
  cpu::Add(OneThread(), {.a = Vector(p.a, p.dtype, p.elements),
                         .b = Vector(p.b, p.dtype, p.elements),
                         .y = Vector(p.y, p.dtype, p.elements)});
}

void SumInOrderBody(const SumInOrderParams& p) {
  TensorView parts[kPartsMax];
  for (int part = 0; part < p.count; ++part) parts[part] = Vector(p.parts[part], p.dtype, p.elements);
  cpu::SumInOrder(OneThread(), absl::MakeConstSpan(parts, p.count), Vector(p.sum, p.dtype, p.elements));
}

void FillBody(const FillParams& p) {
  // An i32's bits are in the value already.
  const DType type = p.dtype == DType::kI32 ? DType::kF32 : p.dtype;
  cpu::Fill(OneThread(), Vector(p.target, type, p.elements), p.value);
}

void CastBody(const CastParams& p) {
  for (int64_t i = 0; i < p.elements; ++i) p.target[i] = ToBFloat16(p.source[i]);
}

void DropoutBody(const DropoutParams& p) {
  cpu::Dropout(OneThread(), {.key = p.key,
                             .rate = p.rate,
                             .samples = Vector(p.samples, DType::kI32, p.samples_count),
                             .sequence = p.sequence,
                             .first_token = p.first_token,
                             .x = Matrix(p.x, p.dtype, p.rows, p.columns),
                             .add = Matrix(p.add, p.dtype, p.rows, p.columns),
                             .y = Matrix(p.y, p.dtype, p.rows, p.columns)});
}

void RopeBody(const RopeParams& p) {
  const int64_t kv_heads = p.columns / p.head_size - p.rotated_heads;
  cpu::Rope(OneThread(), {.shape = {.rows = 1,
                                    .sequence = p.rows,
                                    .heads = p.rotated_heads - kv_heads,
                                    .kv_heads = kv_heads,
                                    .head_size = p.head_size},
                          .theta = p.theta,
                          .scaling = p.scaling,
                          .direction = p.direction,
                          .qkv = Matrix(p.qkv, p.dtype, p.rows, p.columns),
                          .positions = Vector(p.positions, DType::kI32, p.rows)});
}

void InitNormalBody(const InitNormalParams& p) {
  cpu::InitNormal(OneThread(), {.key = p.key,
                                .deviation = p.deviation,
                                .target = Matrix(p.target, DType::kF32, p.elements / p.columns, p.columns),
                                .first = p.first,
                                .stride = p.stride});
}

[[maybe_unused]] const bool registered[] = {
    Register<GeluParams, GeluForwardBody>("GeluForward"),
    Register<GeluParams, GeluBackwardBody>("GeluBackward"),
    Register<SwigluParams, SwigluForwardBody>("SwigluForward"),
    Register<SwigluParams, SwigluBackwardBody>("SwigluBackward"),
    Register<AddParams, AddBody>("Add"),
    Register<SumInOrderParams, SumInOrderBody>("SumInOrder"),
    Register<FillParams, FillBody>("Fill"),
    Register<CastParams, CastBody>("CastToBFloat16"),
    Register<DropoutParams, DropoutBody>("Dropout"),
    Register<RopeParams, RopeBody>("Rope"),
    Register<InitNormalParams, InitNormalBody>("InitNormal"),
};

}  // namespace
}  // namespace sluice::cuda
