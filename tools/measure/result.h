// What a benchmark found, as a plain value and as the JSON file that `sluice bench -o` writes and `--compare` reads.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "tools/measure/floor.h"

namespace sluice::tools {

// All calls of one operation and shape in a step, on all ranks.
struct BenchedOperation {
  std::string operation;
  ProductShape shape;
  int64_t calls = 0;
  std::vector<double> ms;  // of each profiled step, times the threads of a rank
  double flops = 0;
  double read_bytes = 0;
  double written_bytes = 0;
  ProductRates rates;
  FloorTime floor;
};

struct BenchResult {
  std::string program;    // name and version
  std::string processor;  // and its instruction set
  int threads = 0;        // of all ranks
  // The job: what two results must have in common to be compared, as (name, value).
  std::vector<std::pair<std::string, std::string>> job;
  double tokens = 0;  // of a step

  std::vector<double> step_ms;
  double bubble = 0;  // of the median step
  double planned_bubble = 0;
  double simulated_ms = 0;        // the schedule with the measured costs; 0: not known
  double traced_ms = 0;           // what that is held against: the median of the steps' timelines
  double overhead_share = 0;      // of the worst rank's step: executor and transport; negative: not known
  int64_t planned_bytes = 0;      // of all ranks
  int64_t base_bytes = 0;         // the process before it had a model
  int64_t peak_bytes = 0;         // the process, until the last step
  double first_step_seconds = 0;  // from the start of the process to the end of its first step; 0: not known

  double profiled_step_ms = 0;
  cpu::MemoryRate memory;  // zeroes: floors weren't measured
  std::vector<BenchedOperation> operations;
};

double Median(std::vector<double> values);  // 0 of none

FloorTime FloorOfStep(const BenchResult& result);  // summed over all threads

std::string ToJson(const BenchResult& result);
// `file` is for errors. INVALID_ARGUMENT: broken, not a result, or of another version of the format.
absl::StatusOr<BenchResult> ResultFromJson(absl::string_view text, const std::string& file);
absl::StatusOr<BenchResult> ReadResult(const std::string& path);

}  // namespace sluice::tools
