// What changed between two benchmarks by more than the noise. Pure functions.
//
// *Estimate* of a time: the median of its samples, known to +- error = 3 * 1.2533 * 1.4826 * MAD / sqrt(n), three
// standard errors of a median, with the standard deviation taken from the median absolute deviation from the median
// (MAD), which a few outliers don't move. *Noise* of a difference: sqrt(error_before^2 + error_after^2), and at least a
// share of the time before that runs of the same program differ by whatever their samples say (placement of pages, the
// clock, other processes): 1 % where rounds alternate, 3 % against a result from another day. *Changed*: the medians
// differ by more than the noise. Samples are the steps of one run, or, of three alternating rounds or more, the rounds'
// medians.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "tools/measure/result.h"

namespace sluice::tools {

inline constexpr double kSmallestNoiseAlternating = 0.01;
inline constexpr double kSmallestNoiseApart = 0.03;

struct Estimate {
  double median = 0;
  double error = 0;
};
Estimate EstimateOf(absl::Span<const double> samples);  // REQUIRES: there is one

struct Change {
  std::string what;  // "step", or an operation with its shape
  double before_ms = 0;
  double after_ms = 0;
  double noise_ms = 0;

  double difference_ms() const { return after_ms - before_ms; }
  bool beyond_noise() const { return difference_ms() > noise_ms || -difference_ms() > noise_ms; }
  bool slower() const { return difference_ms() > noise_ms; }
};
Change ChangeOf(std::string what, absl::Span<const double> before, absl::Span<const double> after,
                double smallest_noise);

// The step first, then every operation that both have, the largest difference first; operations that only one of them
// has count as 0 ms in the other.
std::vector<Change> Compare(const BenchResult& before, const BenchResult& after, double smallest_noise);

// INVALID_ARGUMENT names what differs between two results that can't be compared: processor, threads or the job.
// `file` is where `before` comes from.
absl::Status CheckComparable(const BenchResult& before, const BenchResult& after, const std::string& file);

// Results of several rounds as one: its samples are the rounds' medians where there are at least three rounds, else all
// samples. REQUIRES: there is one.
BenchResult MergeRounds(absl::Span<const BenchResult> rounds);

// "linear forward 512 x 3072 x 768 f32"
std::string TitleOf(const BenchedOperation& operation);

}  // namespace sluice::tools
