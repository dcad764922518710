#include "runtime/control/clock_offset.h"

#include <algorithm>

namespace sluice {
namespace {

constexpr size_t kSamples = 16;

}  // namespace

void ClockOffsetEstimate::Add(Nanoseconds sent, Nanoseconds answered, Nanoseconds received) {
  if (sent < 0 || answered < 0 || sent > received) return;
  const Nanoseconds half = (received - sent) / 2;
  samples_.push_back({.offset = answered - (sent + half), .uncertainty = half + 1});
  if (samples_.size() > kSamples) samples_.pop_front();
}

ClockOffset ClockOffsetEstimate::best() const {
  ClockOffset best;
  for (const ClockOffset& sample : samples_) {
    if (sample.uncertainty < best.uncertainty) best = sample;
  }
  return best;
}

}  // namespace sluice
