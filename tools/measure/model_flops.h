// The FLOPs that a model needs, whatever a program spends: what MFU counts. A pure function.
#pragma once

#include "runtime/config/job.h"

namespace sluice::tools {

// Of a token in training: 6 for each parameter, and 12 x layers x width of attention x sequence.
double FlopsPerToken(const JobConfig& job);

}  // namespace sluice::tools
