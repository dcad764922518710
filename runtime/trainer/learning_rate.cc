#include "runtime/trainer/learning_rate.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace sluice {

double LearningRateSchedule::At(int64_t update) const {
  if (update <= warm_up_steps) return peak * static_cast<double>(update) / static_cast<double>(warm_up_steps);
  if (decay_steps <= warm_up_steps) return peak;
  const double done = static_cast<double>(update - warm_up_steps) / static_cast<double>(decay_steps - warm_up_steps);
  return minimum + 0.5 * (peak - minimum) * (1.0 + std::cos(std::numbers::pi * std::min(done, 1.0)));
}

}  // namespace sluice
