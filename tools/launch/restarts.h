// A job that is started again when it fails, from its last complete checkpoint.
//
// Threads: one.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/time.h"
#include "base/world.h"
#include "tools/launch/supervisor.h"

namespace sluice::tools {

struct RestartOptions {
  int most = 0;  // restarts in a row without a new checkpoint between them; 0: none
  Nanoseconds first_pause = kSecond;
  Nanoseconds longest_pause = 60 * kSecond;  // each is twice as long as the one before; progress begins anew
  // Runs the job, from `saved_step()` if that is not 0, else from where the user said.
  std::function<absl::StatusOr<SupervisionResult>()> run;
  std::function<int64_t()> saved_step;  // of the newest complete checkpoint; 0: there is none
  std::function<void(const std::string& line)> say;
  std::function<std::string()> date;  // for people
};

// Returns how the job ended at last: well, because a person ended it, or because it failed too often. Each restart is
// said when it happens, and all of them at the end: when, which process, why, from which step.
absl::StatusOr<SupervisionResult> RunWithRestarts(World* world, const RestartOptions& options);

}  // namespace sluice::tools
