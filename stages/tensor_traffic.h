// What the shards of a tensor-parallel group exchange, as pure functions of sizes.
#pragma once

#include <cstdint>

#include "stages/graph.h"
#include "stages/tensor_parallel.h"

namespace sluice {

// Of one shard: how many collectives it takes part in, and the bytes that it gets from the others in them.
struct Traffic {
  int64_t collectives = 0;
  int64_t bytes = 0;

  Traffic& operator+=(const Traffic& other) {
    collectives += other.collectives;
    bytes += other.bytes;
    return *this;
  }
  friend Traffic operator+(Traffic a, const Traffic& b) { return a += b; }
  friend bool operator==(const Traffic&, const Traffic&) = default;
};

// Of a layer, in training. A sum over the shards is two collectives: an exchange of parts and an all-gather, of which
// sequence parallelism moves the second to where all tokens are needed.
struct LayerTraffic {
  Traffic forward;
  Traffic input_gradient;
  Traffic weight_gradient;
  // What recomputation adds: selective to the weight gradient, full to the input gradient.
  Traffic recompute_selective;
  Traffic recompute_full;
};

// Of one micro-batch of `rows` sequences of `sequence` tokens.
LayerTraffic TensorTraffic(const Node& node, int64_t rows, int64_t sequence, Precision precision,
                           const TensorParallel& tensor);

// At the end of a step, of nodes begin ... end-1: gradients that several shards hold parts of, and norm partials.
Traffic TensorStepTraffic(const LayerGraph& graph, size_t begin, size_t end, const TensorParallel& tensor);

// Gradient elements that are summed over shards at a time: enough for the exchange to be worth it.
inline constexpr int64_t kSharedElements = 65536;

}  // namespace sluice
