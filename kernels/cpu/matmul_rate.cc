#include "kernels/cpu/matmul_rate.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "kernels/cpu/onednn.h"
#include "kernels/cpu/stream.h"

namespace sluice::cpu {
namespace {

constexpr Nanoseconds kTime = 100 * kMillisecond;
constexpr int kCallsMin = 3;

// Best time of one call.
Nanoseconds Time(World* world, const std::function<void()>& call) {
  call();  // makes the primitive
  Nanoseconds best = kForever;
  const Nanoseconds first = world->Now();
  for (int calls = 0; calls < kCallsMin || world->Now() - first < kTime; ++calls) {
    const Nanoseconds began = world->Now();
    call();
    best = std::min(best, world->Now() - began);
  }
  return best;
}

struct Operands {
  std::vector<float> x, y, right, packed;
};

bool IsReference(const std::string& implementation) { return implementation.rfind("ref", 0) == 0; }

// kForever: only by the library's reference loops.
Nanoseconds TimeRight(World* world, const MatmulShape& shape, LibraryLayout layout, Operands& operands) {
  const bool forward = shape.kind == MatmulKind::kForward;
  // weight[N,K] is the transposed right-hand side of the forward product.
  const RightLayout plain = forward ? RightLayout::kColumnMajor : RightLayout::kRowMajor;
  const RightMatrix right{.depth = forward ? shape.k : shape.n,
                          .columns = forward ? shape.n : shape.k,
                          .type = shape.type,
                          .layout = layout == LibraryLayout::kPacked ? RightLayout::kLibrary : plain};
  const RightProduct product{
      .right = right, .rows = shape.m, .x_stride = right.depth, .y_stride = right.columns, .y_type = shape.type};
  if (IsReference(ImplementationOf(product))) return kForever;
  operands.right.resize(PackedBytes(right) / sizeof(float) + 64);
  return Time(world, [&] { Multiply(product, operands.x.data(), operands.right.data(), nullptr, operands.y.data()); });
}

Nanoseconds TimeTransposed(World* world, const MatmulShape& shape, LibraryLayout layout, Operands& operands) {
  const bool packs = layout == LibraryLayout::kPacked;
  const TransposedProduct product{.rows = shape.n,
                                  .columns = shape.k,
                                  .depth = shape.m,
                                  .a_stride = shape.n,
                                  .b_stride = shape.k,
                                  .y_stride = shape.k,
                                  .type = shape.type,
                                  .result = Result::kAddTo,
                                  .b_layout = packs ? RightLayout::kLibrary : RightLayout::kRowMajor};
  if (IsReference(ImplementationOf(product))) return kForever;
  const RightMatrix right{.depth = shape.m, .columns = shape.k, .type = shape.type};
  if (packs) operands.packed.resize(PackedBytes(right) / sizeof(float) + 64);
  const void* const b = packs ? operands.packed.data() : operands.right.data();
  return Time(world, [&] {
    if (packs) {
      Pack(right, operands.right.data(), shape.type, {.depth = shape.k, .column = 1},
           reinterpret_cast<std::byte*>(operands.packed.data()));
    }
    Multiply(product, operands.x.data(), b, operands.y.data());
  });
}

// One thread's part: its operands, and its best time of one call.
struct Part {
  Operands operands;
  Nanoseconds best = 0;
  std::unique_ptr<CpuStream> stream;
  EventRef done;
};

}  // namespace

double LibraryRate(World* world, const MatmulShape& shape, LibraryLayout layout, int threads) {
  MatmulShape what = shape;
  what.type = shape.type == DType::kBF16 && HasFastBFloat16() ? DType::kBF16 : DType::kF32;
  const int64_t largest = std::max({shape.m * shape.n, shape.m * shape.k, shape.n * shape.k});
  std::vector<Part> parts(threads);
  for (Part& part : parts) {
    part.operands.x.resize(largest);
    part.operands.y.resize(largest);
    part.operands.right.resize(largest);
    part.stream = std::make_unique<CpuStream>(world, "rates", 1, std::vector<int>());
  }
  const MatmulShape* const shared = &what;
  for (Part& part : parts) {
    Part* const mine = &part;
    part.stream->Issue([=](Team& team) {
      // Inside a loop of the team, where the library is told to use one thread.
      team.ParallelFor(1, [&](int64_t) {
        mine->best = shared->kind == MatmulKind::kWeightGradient ? TimeTransposed(world, *shared, layout, mine->operands)
                                                                 : TimeRight(world, *shared, layout, mine->operands);
      });
    });
    part.done = part.stream->Record();
  }
  const double flops = 2.0 * static_cast<double>(shape.m) * static_cast<double>(shape.n) * static_cast<double>(shape.k);
  double rate = 0;
  for (Part& part : parts) {
    CHECK_OK(world->Wait(part.done));
    if (part.best != kForever) rate += flops * kSecond / static_cast<double>(std::max<Nanoseconds>(part.best, 1));
  }
  return rate / threads;
}

}  // namespace sluice::cpu
