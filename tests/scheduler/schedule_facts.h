// What several tests of schedules count or draw by lot.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "scheduler/generators.h"
#include "scheduler/schedule.h"

namespace sluice {

// Most chunks that a rank holds at once, when W (or B), or I (or B), gives one back.
inline std::vector<int> PeakChunks(const Schedule& schedule, ActionKind release) {
  std::vector<int> peaks;
  for (const auto& list : schedule.ranks) {
    int held = 0, peak = 0;
    for (const Action& action : list) {
      if (action.kind == ActionKind::kForward) peak = std::max(peak, ++held);
      if (action.kind == release || action.kind == ActionKind::kBackward) --held;
    }
    peaks.push_back(peak);
  }
  return peaks;
}

inline std::vector<PassCosts> RandomCosts(std::mt19937& random, int stages) {
  const auto between = [&](int least, int most) { return least + static_cast<int64_t>(random() % (most - least + 1)); };
  std::vector<PassCosts> costs(stages);
  for (PassCosts& c : costs) {
    c = {between(1, 30), between(1, 30), between(1, 20), between(0, 3), between(1, 40), 0};
    c.weight_bytes = between(0, static_cast<int>(c.forward_bytes));
  }
  return costs;
}

}  // namespace sluice
