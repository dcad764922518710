#include "tools/forecast.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "kernels/cuda/packed_linear.h"
#include "runtime/config/device_file.h"
#include "runtime/planner/hosts.h"
#include "runtime/planner/text_table.h"

namespace sluice::tools {
namespace {

constexpr int64_t kMebibyte = int64_t{1} << 20;

// What the device has room for caps every rank, beside what the job allows itself.
void LimitMemory(const Forecast& forecast, JobConfig& job) {
  const int64_t room = forecast.device.memory_bytes - forecast.device.reserved_bytes;
  std::vector<int64_t>& limits = job.layout.memory_limit;
  const bool own = !limits.empty() && *std::min_element(limits.begin(), limits.end()) < room;
  if (limits.empty()) limits.assign(job.layout.pp, room);
  for (int64_t& limit : limits) limit = std::min(limit, room);
  if (own) return;
  job.layout.memory_limit_place =
      absl::StrCat(forecast.device.name, " has ", Grouped(forecast.device.memory_bytes), " bytes (",
                   forecast.device.memory_bytes / kMebibyte, " MiB), of which driver and libraries take ",
                   Grouped(forecast.device.reserved_bytes), ": ");
}

}  // namespace

absl::StatusOr<Forecast> MakeForecast(JobConfig job, const std::string& devices, const std::string& user_directory) {
  ASSIGN_OR_RETURN(const DeviceChoice choice, ParseDevices(devices));
  Forecast forecast;
  ASSIGN_OR_RETURN(forecast.device, FindDevice(choice.device, user_directory));
  const int ranks = job.layout.grid().ranks();
  forecast.devices = choice.count > 0 ? choice.count : ranks;
  forecast.hosts = HostsOf(forecast.devices, forecast.device);
  if (forecast.devices < ranks) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--on ", devices, ": the job has ", ranks, " ranks (pp ", job.layout.pp, " x dp ", job.layout.dp, " x tp ",
        job.layout.tp, "), each of which needs a device; ask for ", ranks, " or change --set layout.pp, dp or tp"));
  }
  LimitMemory(forecast, job);
  ASSIGN_OR_RETURN(forecast.plan, MakePlan(job, {.device = forecast.device, .packed_bytes = cuda::PackedLinearBytes}));
  return forecast;
}

}  // namespace sluice::tools
