#include "kernels/cpu/matmul_rate.h"

#include <algorithm>
#include <functional>
#include <memory>
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

// One thread's part: its operands, and its best time of one call.
struct Part {
  Operands operands;
  Nanoseconds best = 0;
  std::unique_ptr<CpuStream> stream;
  EventRef done;
};

}  // namespace

double LibraryRate(World* world, const MatmulShape& shape, int threads) {
  const DType type = shape.type == DType::kBF16 && HasFastBFloat16() ? DType::kBF16 : DType::kF32;
  const int64_t largest = std::max({shape.m * shape.n, shape.m * shape.k, shape.n * shape.k});
  std::vector<Part> parts(threads);
  for (Part& part : parts) {
    part.operands.x.resize(largest);
    part.operands.y.resize(largest);
    part.operands.right.resize(largest);
    part.stream = std::make_unique<CpuStream>(world, "rates", 1, std::vector<int>());
  }
  const MatmulShape* const what = &shape;
  for (Part& part : parts) {
    Part* const mine = &part;
    part.stream->Issue([=](Team&) {
      mine->best = what->kind == MatmulKind::kWeightGradient ? TimeTransposed(world, *what, type, mine->operands)
                                                             : TimeRight(world, *what, type, mine->operands);
    });
    part.done = part.stream->Record();
  }
  const double flops = 2.0 * static_cast<double>(shape.m) * static_cast<double>(shape.n) * static_cast<double>(shape.k);
  double rate = 0;
  for (Part& part : parts) {
    CHECK_OK(world->Wait(part.done));
    rate += flops * kSecond / static_cast<double>(std::max<Nanoseconds>(part.best, 1));
  }
  return rate / threads;
}

}  // namespace sluice::cpu
