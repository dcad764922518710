// What several tests of schedules count or draw by lot.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "scheduler/generators.h"
#include "scheduler/program.h"
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

// One to three random changes: of order, of number, of slots, of queues.
inline void Mutate(std::mt19937& random, Program& program) {
  const auto below = [&](size_t n) { return static_cast<int>(random() % n); };
  for (int change = 0; change <= below(2); ++change) {
    auto& list = program.ranks[below(program.ranks.size())];
    if (list.empty()) continue;
    const int k = below(list.size()), other = below(list.size());
    switch (below(9)) {
      case 0:
        std::swap(list[k], list[other]);
        break;
      case 1:
        list.erase(list.begin() + k);
        break;
      case 2:
        list.insert(list.begin() + other, Action(list[k]));
        break;
      case 3:
        list[k].slot = below(4);
        break;
      case 4:
        list[k].queue = QueueId(below(program.queues.size()));
        break;
      case 5:
        list[k].micro_batch = MicroBatch(below(program.micro_batches));
        break;
      case 6:
        list[k].stash = below(3);
        break;
      default:  // the likeliest to be harmless or a deadlock: a short move
        std::rotate(list.begin() + std::max(0, k - 1 - below(4)), list.begin() + k, list.begin() + k + 1);
    }
  }
}

}  // namespace sluice
