// What a layer's work costs: floating-point operations and bytes moved, as pure functions of its sizes. The analytic
// cost model and the floor that measured steps are held against stand on it.
#pragma once

#include <cstdint>

#include "stages/graph.h"
#include "stages/tensor_parallel.h"

namespace sluice {

// `flops`: two per multiply-add of the matrix products, attention's included (causal: half of the square). `bytes`:
// what all operations together read and write, each tensor once per operation; `product_bytes` of them belong to the
// operations that the FLOPs are of, which may do both at once. `operations`: how many run one after another.
struct OperationCost {
  double flops = 0;
  double bytes = 0;
  double product_bytes = 0;
  double operations = 0;

  OperationCost& operator+=(const OperationCost& other) {
    flops += other.flops;
    bytes += other.bytes;
    product_bytes += other.product_bytes;
    operations += other.operations;
    return *this;
  }
  friend OperationCost operator+(OperationCost a, const OperationCost& b) { return a += b; }
  friend bool operator==(const OperationCost&, const OperationCost&) = default;
};

// Of training: all work of a head is in its input gradient.
struct LayerCost {
  OperationCost forward;
  OperationCost input_gradient;
  OperationCost weight_gradient;
  // What recomputation adds: selective to the weight gradient, full to the input gradient.
  OperationCost recompute_selective;
  OperationCost recompute_full;
};

// Of one micro-batch of B = rows sequences of T = sequence tokens, by one shard. What shards exchange is not in it
// (tensor_traffic.h); the sums that they make of it are.
LayerCost Cost(const Node& node, int64_t rows, int64_t sequence, Precision precision,
               const TensorParallel& tensor = {});

}  // namespace sluice
