#include "tests/gpu_sim/report.h"

#include <algorithm>
#include <utility>

namespace gpu_sim {

void Reports::Add(ReportKind kind, std::string text) {
  std::lock_guard lock(mutex_);
  const auto same = std::find_if(reports_.begin(), reports_.end(),
                                 [&](const Report& report) { return report.kind == kind && report.text == text; });
  if (same != reports_.end()) {
    ++same->times;
  } else {
    reports_.push_back({.kind = kind, .text = std::move(text)});
  }
}

std::vector<Report> Reports::all() const {
  std::lock_guard lock(mutex_);
  return reports_;
}

}  // namespace gpu_sim
