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
  return Nanoseconds(std::max(cost.flops / flops_per_second, cost.bytes / device.bytes_per_second)) +
         device.layer_overhead_ns;
}

}  // namespace

LayerTimes AnalyticTimes(const Node& node, int64_t rows, int64_t sequence, Precision precision, Recomputation recompute,
                         const DeviceDescription& device) {
  LayerCost cost = Cost(node, rows, sequence, precision);
  if (recompute == Recomputation::kSelective) cost.weight_gradient += cost.recompute_selective;
  if (recompute == Recomputation::kFull) cost.input_gradient += cost.recompute_full;
  const double flops = precision == Precision::kBF16 ? device.flops_bf16 : device.flops_f32;
  return {.forward_ns = TimeOf(cost.forward, flops, device),
          .input_gradient_ns = TimeOf(cost.input_gradient, flops, device),
          .weight_gradient_ns = TimeOf(cost.weight_gradient, flops, device)};
}

int64_t OptimizerTime(int64_t parameters, const DeviceDescription& device) {
  return Nanoseconds(static_cast<double>(parameters) * kOptimizerBytesPerParameter / device.bytes_per_second);
}

int64_t TransferTime(int64_t bytes, const DeviceDescription& device) {
  const double copy = device.link_bytes_per_second > 0 ? static_cast<double>(bytes) / device.link_bytes_per_second : 0;
  return device.link_latency_ns + Nanoseconds(copy);
}

}  // namespace sluice
