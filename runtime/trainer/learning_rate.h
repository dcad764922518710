// The learning rate of each update: linear warm-up, then cosine decay to a minimum (Loshchilov and Hutter, SGDR, one cycle).
#pragma once

#include <cstdint>

namespace sluice {

struct LearningRateSchedule {
  double peak = 3e-4;
  double minimum = 3e-5;
  int64_t warm_up_steps = 0;
  int64_t decay_steps = 0;  // updates from the start to the minimum; 0: no decay

  // Of update 1, 2, ...: rises to `peak` at warm_up_steps, falls to `minimum` at decay_steps and stays there.
  double At(int64_t update) const;
};

}  // namespace sluice
