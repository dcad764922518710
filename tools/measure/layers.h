// Where a step's time goes by layer: the profiled operations brought together by what they were issued for, and the
// costs that a planner takes. Pure functions.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "kernels/profiled_device.h"
#include "runtime/config/layer_profile.h"
#include "runtime/planner/plan.h"
#include "stages/stage_layout.h"
#include "tools/measure/floor.h"

namespace sluice::tools {

// One pass of one layer (or the end of the step), in a step; milliseconds times the threads of a rank.
struct PassTime {
  double ms = 0;  // median of the steps
  FloorTime floor;
  PassTime& operator+=(const PassTime& other) {
    ms += other.ms;
    floor += other.floor;
    return *this;
  }
};

struct StepByLayer {
  std::vector<std::array<PassTime, kLayerPasses>> nodes;  // all micro-batches
  PassTime end_of_step;                                   // what was issued for no layer: norm, optimizer, packing
  double total_ms() const;
};

// `steps` as StepRun::operations. REQUIRES: there is one.
StepByLayer ByLayer(absl::Span<const std::vector<OperationTime>> steps, size_t nodes, int threads_per_rank,
                    const MachineRates& rates);

// Costs of one micro-batch for the planner. Layers that are alike share the median of theirs. The times are scaled by
// one factor so that together they are what the stages' actions took in steps that weren't profiled (`costs`).
LayerProfile ProfileOf(const Plan& plan, const StepByLayer& step, const Costs& costs, const std::string& processor);

// By kind of layer, then by layer.
std::string ToText(const Plan& plan, const StepByLayer& step);

}  // namespace sluice::tools
