// What a run measured, as JSON lines: one object a step, written at once, so that others can follow the file. README.md
// lists the fields.
//
// Threads: one. Ownership: owns the open file.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sluice {

struct StepMetrics {
  int64_t step = 0;                       // number of the optimizer update, from 1
  std::optional<double> loss;             // mean over the step's valid targets, nats
  std::optional<double> evaluation_loss;  // of the held-out part, where it was evaluated after this step
  std::optional<double> learning_rate;
  std::optional<double> gradient_norm;  // global, before clipping
  std::optional<double> tokens_per_second;
  std::optional<double> step_seconds;
  std::optional<double> bubble;                      // measured, share of the makespan
  std::optional<bool> skipped;                       // a gradient was not finite: no update
  std::vector<std::pair<std::string, double>> more;  // further fields, at the line's end
};

// One line of the log without its end. What is not set is left out; a number that is not finite is null, as JSON has
// none.
std::string FormatMetrics(const StepMetrics& metrics);

class MetricsLog {
 public:
  // Replaces the file, but for its lines of steps up to `kept_steps`, which a run that goes on after them leaves. `warn` is called once, with path and remedy, when a line cannot be written; from then on the log
  // is silent, and the run goes on. Errors: the file cannot be opened.
  static absl::StatusOr<std::unique_ptr<MetricsLog>> Create(const std::string& path,
                                                            std::function<void(const absl::Status&)> warn,
                                                            int64_t kept_steps = 0);
  ~MetricsLog();
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;

  void Write(const StepMetrics& metrics);

 private:
  MetricsLog() = default;
  void WriteText(const std::string& lines);

  std::string path_;
  std::function<void(const absl::Status&)> warn_;
  int file_ = -1;
  int64_t bytes_ = 0;  // of whole lines
  bool failed_ = false;
};

}  // namespace sluice
