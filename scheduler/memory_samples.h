// Bytes held by each rank's slots over a step, simulated or measured.
#pragma once

#include <vector>

#include "scheduler/program.h"
#include "scheduler/timeline.h"
#include "scheduler/verifier.h"

namespace sluice {

// `spans` are those of one pass through the program, in any order; `bytes` one entry per stage. Per rank ascending in time; the first
// sample is what the rank holds all the time.
std::vector<MemorySample> MemorySamples(const Program& program, const std::vector<StageBytes>& bytes,
                                        const std::vector<Span>& spans);

}  // namespace sluice
