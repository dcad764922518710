// Which of a host's processors each of a job's processes on it takes. Pure.
#pragma once

#include <cstddef>
#include <vector>

#include "tools/launch/environment.h"

namespace sluice::tools {

// The share of process `local_process` of `local_processes` that run on one host and may use the same `processors`:
// consecutive parts, as even as they come. More processes than processors: one for each, in turn.
// REQUIRES: processors is not empty, 0 <= local_process < local_processes.
inline std::vector<int> ShareOfProcessors(const std::vector<int>& processors, int local_process, int local_processes) {
  const size_t size = processors.size(), place = local_process, places = local_processes;
  if (size < places) return {processors[place % size]};
  return {processors.begin() + size * place / places, processors.begin() + size * (place + 1) / places};
}

// The processors of the process at `place`, which may use `allowed` of the host's: its share of them, unless its
// launcher has given it its own already.
inline std::vector<int> ProcessorsOf(const ProcessPlace& place, const std::vector<int>& allowed, int on_host) {
  if (place.binds && static_cast<int>(allowed.size()) < on_host) return allowed;
  return ShareOfProcessors(allowed, place.local_process, place.local_processes);
}

}  // namespace sluice::tools
