// What a layer costs on a device, in time: from FLOPs and bytes (layer_cost.h) and a description of the device, or
// measured. Pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "base/device_description.h"
#include "stages/graph.h"
#include "stages/tensor_parallel.h"
#include "stages/tensor_traffic.h"

namespace sluice {

// Of one micro-batch, in nanoseconds.
struct LayerTimes {
  int64_t forward_ns = 0;
  int64_t input_gradient_ns = 0;
  int64_t weight_gradient_ns = 0;  // recomputation is part of whichever pass does it

  int64_t total_ns() const { return forward_ns + input_gradient_ns + weight_gradient_ns; }
};

// Operations run one after another, each for the larger of its FLOPs' and its bytes' time, plus overheads; a shard of a
// tensor-parallel group also waits for what is exchanged with the others, over `device.peer`.
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
