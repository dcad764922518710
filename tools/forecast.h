// How a job would run on devices that aren't here: `sluice simulate JOB --on "8x H100"`. The job's own plan, with the
// costs, the memory and the lines of a described device.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "base/device_description.h"
#include "runtime/planner/plan.h"
#include "scheduler/simulate.h"

namespace sluice::tools {

struct Forecast {
  DeviceDescription device;
  int devices = 0;  // that were asked for; the job's ranks take the first ones
  int hosts = 0;
  Plan plan;  // its prediction is that of an undisturbed step
};

// Of a job with nothing measured. `devices`: "8x H100"; without a number, as many as the job has ranks.
// Errors: as FindDevice and MakePlan; INVALID_ARGUMENT if there are fewer devices than ranks; RESOURCE_EXHAUSTED with
// the bytes of each rank and of the device.
absl::StatusOr<Forecast> MakeForecast(JobConfig job, const std::string& devices, const std::string& user_directory);

// Of the step `timeline`: by rank, for the job and for each device.
std::string ForecastToText(const Forecast& forecast, const Timeline& timeline);
std::string ForecastToJson(const Forecast& forecast, const Timeline& timeline);

}  // namespace sluice::tools
