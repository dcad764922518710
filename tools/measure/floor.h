// The floor: in what time this machine could do an operation, from rates that were measured on it. Pure functions.
//
// Floor of the calls of one operation and shape = max(FLOPs / best rate of the shape,
//                                                     bytes that must move from and to memory / the memory's rates).
// *Best rate of the shape*: the best of oneDNN with weights packed in its own layout, oneDNN with plain operands, and
// our own operation alone, each with operands that stay in cache as far as they fit, on as many threads at once as the
// job has (rates.h). Attention's products have the best rate of one head's products, [T,D] x [D,T] or [T,T] x [T,D].
// *Bytes that must move*: what can't stay in a cache from one use to the next because the whole model lies between:
// weights once for each use, gradients of weights read and written once a micro-batch (the first only writes), the
// optimizer's state, gradients for their norm. Activations count nothing. The memory's rates are those of streams over
// as many bytes as the job's ranks hold, on all threads at once: of a cache, where a small model stays in it.
// *Floor of a step* = the sum over its operations / the threads of all ranks. A pipeline's bubble is part of what a
// step lacks to its floor.
#pragma once

#include <algorithm>
#include <compare>
#include <cstdint>
#include <map>

#include "kernels/cpu/matmul_rate.h"
#include "kernels/profiled_device.h"

namespace sluice::tools {

struct ProductShape {
  Products products = Products::kNone;
  int64_t m = 0, n = 0, k = 0;
  DType compute = DType::kF32;
  friend auto operator<=>(const ProductShape&, const ProductShape&) = default;
};

// FLOPs a second and thread; 0: not measured.
struct ProductRates {
  double own = 0;
  double packed = 0;  // oneDNN
  double plain = 0;   // oneDNN
  double library() const { return std::max(packed, plain); }
  double best() const { return std::max(own, library()); }
};

struct MachineRates {
  std::map<ProductShape, ProductRates> products;
  cpu::MemoryRate memory;
};

// On one thread.
struct FloorTime {
  double flops_ms = 0;
  double bytes_ms = 0;
  double ms = 0;  // the larger of the two for each operation and shape
  FloorTime& operator+=(const FloorTime& other) {
    flops_ms += other.flops_ms;
    bytes_ms += other.bytes_ms;
    ms += other.ms;
    return *this;
  }
};

ProductShape ShapeOf(const OperationTime& operation);
FloorTime FloorOf(const OperationTime& operation, const MachineRates& rates);

}  // namespace sluice::tools
