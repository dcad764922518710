#include "kernels/cpu/matmul_rate.h"

#include <algorithm>
#include <functional>
#include <vector>

#include "base/check.h"
#include "kernels/cpu/onednn.h"
#include "kernels/cpu/stream.h"

namespace sluice::cpu {
namespace {

constexpr int kRuns = 5;
constexpr Nanoseconds kRunTime = 20 * kMillisecond;

// Best time of one call.
Nanoseconds Time(World* world, const std::function<void()>& call) {
  call();  // makes the primitive
  Nanoseconds best = kForever;
  for (int run = 0; run < kRuns; ++run) {
    const Nanoseconds began = world->Now();
    int64_t calls = 0;
    do {
      call();
      ++calls;
    } while (world->Now() - began < kRunTime);
    best = std::min(best, (world->Now() - began) / calls);
  }
  return best;
}

struct Operands {
  std::vector<float> x, y, right;
};

Nanoseconds TimeRight(World* world, const MatmulShape& shape, DType type, Operands& operands) {
  const bool forward = shape.kind == MatmulKind::kForward;
  const RightMatrix right{.depth = forward ? shape.k : shape.n, .columns = forward ? shape.n : shape.k, .type = type};
  const RightProduct product{
      .right = right, .rows = shape.m, .x_stride = right.depth, .y_stride = right.columns, .y_type = type};
  operands.right.resize(PackedBytes(right) / sizeof(float) + 64);
  return Time(world, [&] { Multiply(product, operands.x.data(), operands.right.data(), nullptr, operands.y.data()); });
}

Nanoseconds TimeTransposed(World* world, const MatmulShape& shape, DType type, Operands& operands) {
  const TransposedProduct product{.rows = shape.n,
                                  .columns = shape.k,
                                  .depth = shape.m,
                                  .a_stride = shape.n,
                                  .b_stride = shape.k,
                                  .y_stride = shape.k,
                                  .type = type,
                                  .result = Result::kAddTo};
  return Time(world, [&] { Multiply(product, operands.x.data(), operands.right.data(), operands.y.data()); });
}

}  // namespace

double LibraryRate(World* world, const MatmulShape& shape) {
  const DType type = shape.type == DType::kBF16 && HasFastBFloat16() ? DType::kBF16 : DType::kF32;
  const int64_t largest = std::max({shape.m * shape.n, shape.m * shape.k, shape.n * shape.k});
  Operands operands;
  operands.x.resize(largest);
  operands.y.resize(largest);
  operands.right.resize(largest);
  Nanoseconds best = 0;
  {
    CpuStream stream(world, "rates", 1, {});
    auto* const out = &best;
    const auto* const what = &shape;
    auto* const where = &operands;
    stream.Issue([=](Team&) {
      *out = what->kind == MatmulKind::kWeightGradient ? TimeTransposed(world, *what, type, *where)
                                                       : TimeRight(world, *what, type, *where);
    });
    const EventRef done = stream.Record();
    CHECK_OK(world->Wait(done));
  }
  const double flops = 2.0 * static_cast<double>(shape.m) * static_cast<double>(shape.n) * static_cast<double>(shape.k);
  return flops * kSecond / static_cast<double>(std::max<Nanoseconds>(best, 1));
}

}  // namespace sluice::cpu
