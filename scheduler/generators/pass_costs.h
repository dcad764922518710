// What generators that follow costs share: times and memory of a bare schedule by PassCosts.
#pragma once

#include <cstdint>
#include <vector>

#include "scheduler/generators.h"

namespace sluice {

// Span of a schedule that runs to its end, each rank's actions in order and as early as their inputs allow.
// `costs` per stage.
int64_t SpanOf(const Schedule& schedule, const std::vector<PassCosts>& costs);

// Most bytes that each rank holds: F takes forward_bytes, I gives back all but weight_bytes, W those.
std::vector<int64_t> PeakBytesOf(const Schedule& schedule, const std::vector<PassCosts>& costs);

// `costs` with every time replaced by its mean over the stages.
std::vector<PassCosts> WithMeanTimes(std::vector<PassCosts> costs);

}  // namespace sluice
