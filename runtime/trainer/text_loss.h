// How well a model predicts texts: forward passes through the pipeline, in windows of the job's sequence.
//
// Each token of a document but the first is predicted once, from those before it in its window: a window begins with
// the token that was predicted last. Threads: the pipeline's caller.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/config/job.h"
#include "runtime/trainer/pipeline.h"

namespace sluice {

struct TextLoss {
  int64_t predicted = 0;  // tokens
  double nats = 0;        // of all of them; the same for every layout

  double mean() const { return predicted > 0 ? nats / static_cast<double>(predicted) : 0; }
};

// `progress`: from time to time, how many tokens have been predicted; may be empty. REQUIRES: all ranks are in this
// process.
absl::StatusOr<TextLoss> EvaluateTexts(Pipeline* pipeline, const TrainingConfig& shape,
                                       absl::Span<const std::vector<int32_t>> documents,
                                       const std::function<void(int64_t predicted)>& progress = nullptr);

}  // namespace sluice
