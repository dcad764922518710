// Whether each barrier of the kernels is needed, and its absence noticed: every launch runs again with each of its
// barriers left out, one place of the code at a time. A barrier that is never missed is either redundant, and to be
// removed, or a hole in the checks.
//
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tests/gpu_sim/kernel_run.h"

namespace gpu_sim {

class BarrierPower {
 public:
  // As RunEveryThread. It also runs the launch without each barrier that no launch has missed yet, on the same memory.
  RunResult Run(const KernelLaunch& launch, const RunOptions& options);

  // Barriers and waits for copies so far, as "KERNEL: PLACE".
  int64_t barriers() const { return static_cast<int64_t>(missed_.size()); }
  // Those among them that no launch missed.
  std::vector<std::string> never_missed() const;

 private:
  std::map<std::string, bool> missed_;
};

}  // namespace gpu_sim
