// From the model section of a job to its layer graph and its parameters.
#pragma once

#include "absl/status/status.h"
#include "runtime/config/job.h"

namespace sluice {

// Builds the family's graph, reads the graph file, or opens the model: sets `graph`, and of a model that exists
// `initial`. Uses `model`, and from the rest what stands in for sizes that were left out: the vocabulary of text (256),
// and the sequence for the number of positions. Errors: what is wrong with the section, or with a file that it names.
absl::Status MakeModel(JobConfig& config);

}  // namespace sluice
