// Rotary positions of models that were trained on longer texts than at first: low frequencies turn more slowly.
#pragma once

#include "kernels/host_device.h"

namespace sluice {

// As Llama 3.1's: a frequency that turns less than `low_turns` times within `positions` is divided by `factor`, one
// that turns more than `high_turns` times stays, and between the two is interpolated. With positions 0 all are divided
// ("linear": Chen et al., "Extending context window of large language models via positional interpolation", 2023).
struct RopeScaling {
  float factor = 1;  // 1: none
  float low_turns = 1;
  float high_turns = 4;
  float positions = 0;
};

SLUICE_HOST_DEVICE inline double ScaledFrequency(double frequency, const RopeScaling& scaling) {
  if (scaling.factor == 1) return frequency;
  constexpr double kTwoPi = 6.28318530717958647693;
  const double turns = frequency * scaling.positions / kTwoPi;
  const double between = (turns - scaling.low_turns) / (double{scaling.high_turns} - scaling.low_turns);
  const double kept = between < 0 ? 0 : between > 1 ? 1 : between;
  return frequency * ((1 - kept) / scaling.factor + kept);
}

}  // namespace sluice
