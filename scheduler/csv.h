// Schedules as text, in the CSV of PyTorch's pipelining package: one line per rank, one cell per action, empty cells
// for idle slots, "(0F7;7B3)OVERLAP_F_B" for a pair. With our "@1" behind an action of copy 1; what else a CSV can't
// say (queues, slots, collectives, the optimizer step) is left out.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "scheduler/schedule.h"

namespace sluice {

// Understood as well: a byte order mark, Windows line ends, quoted and blank cells, blank lines at the end, and the
// letters of PyTorch's older files (BW for B; B for the I of a micro-batch that has its own W).
// The numbers of ranks, stages, micro-batches and copies and the placement follow from the actions. Transfers may be
// there or not; Lower takes either. A schedule without any B, I or W is forward-only.
// Errors: INVALID_ARGUMENT "<file>:<line>:<column>: expected ...", both counted from 1.
absl::StatusOr<Schedule> ReadCsv(absl::string_view text, absl::string_view file);

// Of a schedule's or a program's lists.
std::string WriteCsv(const std::vector<std::vector<Action>>& ranks);

}  // namespace sluice
