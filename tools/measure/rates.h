// Measures what floors are made of (floor.h).
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "base/world.h"
#include "tools/measure/floor.h"

namespace sluice::tools {

// Of the shapes of `operations`, and of whatever holds a working set of so many bytes (of the whole job), on `threads`
// threads at once. Takes some seconds.
absl::StatusOr<MachineRates> MeasureRates(World* world, const std::vector<OperationTime>& operations,
                                          int64_t working_set_bytes, int threads);

}  // namespace sluice::tools
