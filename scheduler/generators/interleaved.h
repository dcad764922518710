// The order in which interleaved schedules go through their chunks: groups of n micro-batches, in each group every
// chunk in turn, in each chunk the group's micro-batches (Narayanan et al. 2021; the group size as in Megatron-LM's
// microbatch_group_size_per_vp_stage, or in PyTorch m / max(1, m / p)).
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/generators/common.h"

namespace sluice {

struct VirtualStep {
  int chunk;  // of a forward pass; the backward pass at the same place has chunk v-1-chunk
  MicroBatch micro_batch;
};

struct InterleavedOrder {
  int group_size = 0;              // n
  std::vector<VirtualStep> steps;  // m*v
};

// Errors: INVALID_ARGUMENT with the rule, for v < 2 and for groups that don't fit.
absl::StatusOr<InterleavedOrder> MakeInterleavedOrder(absl::string_view name, const GeneratorParams& params);

}  // namespace sluice
