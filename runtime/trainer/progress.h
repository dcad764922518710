// What a person sees while a run goes on: one line a step, redrawn in place on a terminal and plain elsewhere.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "base/time.h"

namespace sluice {

struct StepProgress {
  int64_t step = 0;  // from 1
  int64_t steps = 0;
  double loss = 0;  // nats per target
  double learning_rate = 0;
  double gradient_norm = 0;
  double tokens_per_second = 0;
  double bubble = 0;  // measured, of the step's makespan
  bool skipped = false;
  Nanoseconds left = 0;  // estimate of the time to the end
};

// "step 12/400  loss 2.3456  lr 3.0e-04  norm 1.23  41.2k tok/s  bubble 11.1%  left 3m20s"
std::string FormatProgress(const StepProgress& progress);
// "45s", "3m20s", "2h05m".
std::string FormatDuration(Nanoseconds duration);

// Threads: one. Writes to `out`, which outlives it; nothing if quiet.
class ProgressPrinter {
 public:
  enum class Mode { kQuiet, kPlain, kTerminal };
  ProgressPrinter(std::FILE* out, Mode mode) : out_(out), mode_(mode) {}
  void Step(const StepProgress& progress);
  // A line of its own that stays: evaluation, samples.
  void Line(const std::string& text);
  // Leaves the redrawn line behind; call before anything else writes to the terminal.
  void Finish();

 private:
  std::FILE* out_;
  Mode mode_;
  bool open_ = false;  // a line stands without its end
};

}  // namespace sluice
