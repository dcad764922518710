#include "kernels/cpu/attention.h"

#include <cstring>
#include <vector>

#include "kernels/cuda/attention_kernels.h"
#include "tests/gpu_sim/bodies/body.h"

namespace sluice::cuda {
namespace {

AttentionShape ShapeOf(const AttentionParams& p) {
  return {.rows = p.rows,
          .sequence = p.at.sequence,
          .heads = p.at.heads,
          .kv_heads = p.at.kv_heads,
          .head_size = p.at.head_size,
          .scale = p.scale};
}

void AttentionForwardBody(const AttentionParams& p) {
  cpu::AttentionForward(OneThread(), {.shape = ShapeOf(p),
                                      .qkv = Matrix(p.qkv, p.dtype, Tokens(p), p.at.width()),
                                      .first_key = Vector(p.first_key, DType::kI32, Tokens(p)),
                                      .y = Matrix(p.y, p.dtype, Tokens(p), p.at.y_width()),
                                      .lse = Vector(p.lse, DType::kF32, Tokens(p) * p.at.heads)});
}

// The whole gradient, of which a kernel's part is taken: `elements` of each token's, from `first` on.
void TakeGradient(const AttentionParams& p, int64_t first, int64_t elements) {
  const int64_t element = SizeOf(p.dtype), width = p.at.width();
  std::vector<std::byte> whole(Tokens(p) * width * element);
  cpu::AttentionBackward(OneThread(), {.shape = ShapeOf(p),
                                       .qkv = Matrix(p.qkv, p.dtype, Tokens(p), width),
                                       .first_key = Vector(p.first_key, DType::kI32, Tokens(p)),
                                       .y = Matrix(p.y, p.dtype, Tokens(p), p.at.y_width()),
                                       .lse = Vector(p.lse, DType::kF32, Tokens(p) * p.at.heads),
                                       .dy = Matrix(p.dy, p.dtype, Tokens(p), p.at.y_width()),
                                       .dqkv = Matrix(whole.data(), p.dtype, Tokens(p), width)});
  for (int64_t token = 0; token < Tokens(p); ++token) {
    const int64_t at = (token * width + first) * element;
    std::memcpy(static_cast<std::byte*>(p.dqkv) + at, whole.data() + at, elements * element);
  }
}

// The statistics that the kernel leaves for the next one are of no use to that one's body.
void QueryGradientBody(const AttentionParams& p) { TakeGradient(p, 0, p.at.y_width()); }

void KeyGradientBody(const AttentionParams& p) { TakeGradient(p, p.at.y_width(), p.at.width() - p.at.y_width()); }

[[maybe_unused]] const bool registered[] = {
    Register<AttentionParams, AttentionForwardBody>("AttentionForward"),
    Register<AttentionParams, QueryGradientBody>("AttentionQueryGradient"),
    Register<AttentionParams, KeyGradientBody>("AttentionKeyGradient"),
};

}  // namespace
}  // namespace sluice::cuda
