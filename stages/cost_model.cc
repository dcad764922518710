#include "stages/cost_model.h"

#include <algorithm>
#include <cmath>

#include "stages/layer_cost.h"

namespace sluice {
namespace {

// AdamW reads weight, gradient and two moments, writes three of them and the packed copy, f32.
constexpr double kOptimizerBytesPerParameter = 8 * 4;

int64_t Nanoseconds(double seconds) { return std::llround(seconds * 1e9); }

int64_t TimeOf(const OperationCost& cost, double flops_per_second, const DeviceDescription& device) {
  if (cost.flops == 0 && cost.bytes == 0) return 0;
  const double products = std::max(cost.flops / flops_per_second, cost.product_bytes / device.bytes_per_second);
  const double others = (cost.bytes - cost.product_bytes) / device.bytes_per_second;
  return Nanoseconds(products + others) + std::llround(cost.operations * static_cast<double>(device.launch_ns)) +
         device.layer_overhead_ns;
}

}  // namespace

LayerTimes AnalyticTimes(const Node& node, int64_t rows, int64_t sequence, Precision precision, Recomputation recompute,
                         const DeviceDescription& device, const TensorParallel& tensor) {
  LayerCost cost = Cost(node, rows, sequence, precision, tensor);
  LayerTraffic traffic = TensorTraffic(node, rows, sequence, precision, tensor);
  if (recompute == Recomputation::kSelective) {
    cost.weight_gradient += cost.recompute_selective;
    traffic.weight_gradient += traffic.recompute_selective;
  }
  if (recompute == Recomputation::kFull) {
    cost.input_gradient += cost.recompute_full;
    traffic.input_gradient += traffic.recompute_full;
  }
  const double flops = precision == Precision::kBF16 ? device.flops_bf16 : device.flops_f32;
  const auto time = [&](const OperationCost& work, const Traffic& exchanged) {
    return TimeOf(work, flops, device) + CollectiveTime(exchanged, device);
  };
  return {.forward_ns = time(cost.forward, traffic.forward),
          .input_gradient_ns = time(cost.input_gradient, traffic.input_gradient),
          .weight_gradient_ns = time(cost.weight_gradient, traffic.weight_gradient)};
}

int64_t OptimizerTime(int64_t parameters, const DeviceDescription& device) {
  return Nanoseconds(static_cast<double>(parameters) * kOptimizerBytesPerParameter / device.bytes_per_second);
}

int64_t CollectiveTime(const Traffic& traffic, const DeviceDescription& device) {
  const double rate = device.peer.bytes_per_second > 0 ? device.peer.bytes_per_second : device.bytes_per_second / 2;
  return traffic.collectives * device.peer.latency_ns + Nanoseconds(static_cast<double>(traffic.bytes) / rate);
}

int64_t TransferTime(int64_t bytes, const DeviceDescription& device) {
  const double copy = device.peer.bytes_per_second > 0 ? static_cast<double>(bytes) / device.peer.bytes_per_second : 0;
  return device.peer.latency_ns + Nanoseconds(copy);
}

}  // namespace sluice
