// Several schedules at one setting, timed and laid side by side: the rows of `sluice simulate`, and how they are
// printed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "scheduler/idle.h"
#include "scheduler/program.h"
#include "scheduler/simulate.h"
#include "scheduler/timeline.h"

namespace sluice::tools {

struct ComparisonRow {
  std::string schedule;
  absl::Status refusal;  // not OK: why there is nothing else
  int stages = 0;
  TimelineMetrics metrics;
  std::vector<IdleCauses> idle;   // per rank
  std::vector<double> in_flight;  // per rank, the most at once: chunks, counted as parts of a whole micro-batch's pass
  int64_t memory_bytes_max = 0;   // most that a rank holds at once; 0: no bytes were given
  int64_t transfers = 0;
  int64_t transfer_bytes = 0;
};

// REQUIRES: `timeline` is of `program`.
ComparisonRow MakeRow(const std::string& schedule, const Program& program, const Timeline& timeline);

// Two tables (times and memory; causes of idle time), a third by rank if there is only one row, then refusals.
std::string RowsToText(const std::vector<ComparisonRow>& rows, int width);
// One line per schedule, times in nanoseconds; a refused schedule has only its name and the reason.
std::string RowsToCsv(const std::vector<ComparisonRow>& rows);
// As the CSV, with the ranks of each schedule.
std::string RowsToJson(const std::vector<ComparisonRow>& rows);

}  // namespace sluice::tools
