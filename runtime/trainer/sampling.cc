#include "runtime/trainer/sampling.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace sluice {

int32_t SampleToken(absl::Span<const float> logits, double temperature, double uniform) {
  CHECK(!logits.empty());
  const auto best = std::max_element(logits.begin(), logits.end());
  if (temperature <= 0) return static_cast<int32_t>(best - logits.begin());
  double total = 0;
  for (float logit : logits) total += std::exp((logit - *best) / temperature);
  double rest = uniform * total;
  int32_t token = 0;
  for (float logit : logits) {
    rest -= std::exp((logit - *best) / temperature);
    if (rest < 0) return token;
    ++token;
  }
  return static_cast<int32_t>(best - logits.begin());  // rounding left a crumb
}

}  // namespace sluice
