#include "tools/measure/rates.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "base/status.h"
#include "kernels/cpu/cpu_device.h"

namespace sluice::tools {
namespace {

constexpr Nanoseconds kTime = 100 * kMillisecond;
constexpr int64_t kCallsMin = 3, kCallsMax = 200;

// One thread's own operands for an operation, and the stream it runs on.
struct Bench {
  std::unique_ptr<Device> device;
  Buffer buffers[4];
  TensorView x, y, weight, packed;
  std::unique_ptr<Stream> stream;
};

absl::Status Prepare(World* world, const ProductShape& what, Bench* bench) {
  const LinearShape shape{what.n, what.k, what.compute};
  bench->device = cpu::NewCpuDevice(world, {.threads = 1});
  const Operations& operations = bench->device->operations();
  auto make = [&](int number, DType type, Shape size, TensorView* view) -> absl::Status {
    *view = {nullptr, type, size};
    ASSIGN_OR_RETURN(bench->buffers[number], bench->device->Allocate(view->bytes(), "rates"));
    view->data = bench->buffers[number].data();
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(make(0, what.compute, {what.m, what.k}, &bench->x));
  RETURN_IF_ERROR(make(1, what.compute, {what.m, what.n}, &bench->y));
  RETURN_IF_ERROR(make(2, DType::kF32, {what.n, what.k}, &bench->weight));
  RETURN_IF_ERROR(make(3, DType::kI32, {operations.PackedLinearBytes(shape) / 4 + 1}, &bench->packed));
  bench->stream = bench->device->NewStream("rates");
  operations.PackLinear(*bench->stream, shape, bench->weight, bench->packed);
  return absl::OkStatus();
}

void IssueOnce(const ProductShape& what, Bench& bench) {
  const LinearShape shape{what.n, what.k, what.compute};
  const Operations& operations = bench.device->operations();
  switch (what.products) {
    case Products::kInputGradient:
      return operations.LinearInputGradient(*bench.stream,
                                            {.shape = shape, .dy = bench.y, .packed = bench.packed, .dx = bench.x});
    case Products::kWeightGradient:
      return operations.LinearWeightGradient(*bench.stream,
                                             {.shape = shape, .x = bench.x, .dy = bench.y, .dweight = bench.weight});
    default:
      return operations.LinearForward(*bench.stream,
                                      {.shape = shape, .x = bench.x, .packed = bench.packed, .y = bench.y});
  }
}

// As many calls on all threads at once; each thread's best time of one call.
absl::Status TimeCalls(World* world, const ProductShape& what, int64_t calls, std::vector<Bench>& benches,
                       std::vector<Nanoseconds>* best) {
  std::vector<std::vector<EventRef>> ends(benches.size());
  for (size_t thread = 0; thread < benches.size(); ++thread) {
    benches[thread].stream->Record();
    for (int64_t call = 0; call < calls; ++call) {
      IssueOnce(what, benches[thread]);
      ends[thread].push_back(benches[thread].stream->Record());
    }
  }
  for (size_t thread = 0; thread < benches.size(); ++thread) {
    for (const EventRef& end : ends[thread]) {
      RETURN_IF_ERROR(world->Wait(end));
      (*best)[thread] = std::min((*best)[thread], std::max<Nanoseconds>(end->ended() - end->began(), 1));
    }
  }
  return absl::OkStatus();
}

// Our own operation, alone on each of `threads` threads at once: FLOPs a second and thread, best call in 100 ms.
absl::StatusOr<double> OwnRate(World* world, const ProductShape& what, int threads) {
  std::vector<Bench> benches(threads);
  for (Bench& bench : benches) RETURN_IF_ERROR(Prepare(world, what, &bench));
  std::vector<Nanoseconds> best(threads, kForever);
  RETURN_IF_ERROR(TimeCalls(world, what, 2, benches, &best));  // the first one makes primitives and scratch
  const int64_t calls = std::clamp(kTime / best.front(), kCallsMin, kCallsMax);
  RETURN_IF_ERROR(TimeCalls(world, what, calls, benches, &best));
  const double flops = 2.0 * static_cast<double>(what.m) * static_cast<double>(what.n) * static_cast<double>(what.k);
  double rate = 0;
  for (const Nanoseconds time : best) rate += flops * kSecond / static_cast<double>(time);
  return rate / threads;
}

cpu::MatmulKind KindOf(Products products) {
  switch (products) {
    case Products::kInputGradient:
      return cpu::MatmulKind::kInputGradient;
    case Products::kWeightGradient:
      return cpu::MatmulKind::kWeightGradient;
    default:
      return cpu::MatmulKind::kForward;
  }
}

absl::StatusOr<ProductRates> RatesOf(World* world, const ProductShape& what, int threads) {
  const cpu::MatmulShape shape{KindOf(what.products), what.m, what.n, what.k, what.compute};
  ProductRates rates{.packed = cpu::LibraryRate(world, shape, cpu::LibraryLayout::kPacked, threads),
                     .plain = cpu::LibraryRate(world, shape, cpu::LibraryLayout::kPlain, threads)};
  ASSIGN_OR_RETURN(rates.own, OwnRate(world, what, threads));
  return rates;
}

// Of one head's scores and of their product with the values, the better.
absl::StatusOr<ProductRates> AttentionRates(World* world, const ProductShape& what, int threads) {
  ProductShape scores = what, values = what;
  scores.products = values.products = Products::kForward;
  std::swap(values.n, values.k);
  ASSIGN_OR_RETURN(const ProductRates a, RatesOf(world, scores, threads));
  ASSIGN_OR_RETURN(const ProductRates b, RatesOf(world, values, threads));
  return ProductRates{std::max(a.own, b.own), std::max(a.packed, b.packed), std::max(a.plain, b.plain)};
}

}  // namespace

absl::StatusOr<MachineRates> MeasureRates(World* world, const std::vector<OperationTime>& operations,
                                          int64_t working_set_bytes, int threads) {
  MachineRates rates;
  for (const OperationTime& operation : operations) {
    const ProductShape shape = ShapeOf(operation);
    if (shape.products == Products::kNone || rates.products.contains(shape)) continue;
    ASSIGN_OR_RETURN(rates.products[shape], shape.products == Products::kAttention
                                                ? AttentionRates(world, shape, threads)
                                                : RatesOf(world, shape, threads));
  }
  rates.memory = cpu::MeasureMemoryRate(world, working_set_bytes, threads);
  return rates;
}

}  // namespace sluice::tools
