// From the model section of a job to its layer graph.
#pragma once

#include "absl/status/statusor.h"
#include "runtime/config/job.h"

namespace sluice {

// Builds the family's graph, or reads the graph file. Uses `model`, and from the rest what stands in for sizes that
// were left out: the vocabulary of text (256), and the sequence for the number of positions. Errors: INVALID_ARGUMENT.
absl::StatusOr<LayerGraph> GraphOf(const JobConfig& config);

}  // namespace sluice
