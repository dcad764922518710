// Reads a cost profile (text form of proto/costs.proto).
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "scheduler/cost_profile.h"

namespace sluice::tools {

// Errors: as ReadSmallFile; INVALID_ARGUMENT "<path>:<line>: ..." for what can't be a cost.
absl::StatusOr<CostProfile> ReadCostFile(const std::string& path);

}  // namespace sluice::tools
