// What a layer costs on a device, in time: from FLOPs and bytes (layer_cost.h) and a description of the device, or
// measured. Pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "stages/graph.h"
#include "stages/tensor_parallel.h"
#include "stages/tensor_traffic.h"

namespace sluice {

// What one rank computes on. The numbers are rates that programs reach, not the data sheet's.
struct DeviceDescription {
  std::string name = "one CPU core";
  double flops_f32 = 5e10;  // per second, matrix products
  double flops_bf16 = 5e10;
  double bytes_per_second = 8e9;      // of memory, streaming
  int64_t layer_overhead_ns = 5'000;  // of issuing and starting one layer's pass
  double link_bytes_per_second = 0;   // between ranks; 0: messages are handed over, not copied
  int64_t link_latency_ns = 20'000;
};

// Of one micro-batch, in nanoseconds.
struct LayerTimes {
  int64_t forward_ns = 0;
  int64_t input_gradient_ns = 0;
  int64_t weight_gradient_ns = 0;  // recomputation is part of whichever pass does it

  int64_t total_ns() const { return forward_ns + input_gradient_ns + weight_gradient_ns; }
};

// Work takes the larger of its FLOPs' and its bytes' time, plus the overhead; a shard of a tensor-parallel group also
// waits for what is exchanged.
LayerTimes AnalyticTimes(const Node& node, int64_t rows, int64_t sequence, Precision precision, Recomputation recompute,
                         const DeviceDescription& device, const TensorParallel& tensor = {});

// Time to update `parameters` elements with AdamW: bound by memory (weight, gradient and two moments read, three
// written, f32, and the packed copy).
int64_t OptimizerTime(int64_t parameters, const DeviceDescription& device);

// Time of collectives, one after another. What is handed over in one memory is still copied, read and written.
int64_t CollectiveTime(const Traffic& traffic, const DeviceDescription& device);

// Time of a message between ranks.
int64_t TransferTime(int64_t bytes, const DeviceDescription& device);

}  // namespace sluice
