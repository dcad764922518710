#include "tests/gpu_sim/machine.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/gpu_sim/driver.h"
#include "tests/gpu_sim/nccl_library.h"

namespace gpu_sim {

Machine::Machine(MachineOptions options) : driver_(std::make_unique<Driver>(std::move(options))) {}

Machine::~Machine() = default;

std::vector<Report> Machine::reports() const { return driver_->reports(); }

std::string Machine::ReportText() const {
  std::string text;
  for (const Report& report : reports()) {
    absl::StrAppend(&text, report.text, report.times > 1 ? absl::StrCat(" (", report.times, " times)") : "", "\n");
  }
  return text;
}

Counters Machine::counters() const { return driver_->counters(); }

int64_t Machine::nccl_calls(int device) const { return driver_->nccl().calls(device); }

std::vector<std::string> Machine::wait_sites() const { return driver_->wait_sites(); }

uint64_t Machine::trace_hash() const { return driver_->trace_hash(); }

}  // namespace gpu_sim
