// The generators, timed at a problem's costs.
#pragma once

#include <vector>

#include "scheduler/search/layout.h"

namespace sluice::search {

struct TimedGenerator {
  Candidate candidate;
  Schedule schedule;  // empty when refused by its generator
  const ModelCut* cut = nullptr;
};

// Each generator for each cut, in that order; those that don't fit say why.

std::vector<TimedGenerator> TimeGenerators(const SearchProblem& problem, ModelCopies copies);

}  // namespace sluice::search
