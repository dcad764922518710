// The schedule that a job asks for: that of its file, or what its generator makes of layout and micro-batches.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "runtime/config/job.h"
#include "scheduler/generators.h"
#include "scheduler/schedule.h"

namespace sluice {

// `costs` of the stages are for generators that follow them; empty: they aren't known yet. Errors: as Generate.
absl::StatusOr<Schedule> ScheduleOf(const JobConfig& config, std::vector<PassCosts> costs = {});

}  // namespace sluice
