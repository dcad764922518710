// Tries a transfer between every pair of this machine's GPUs, by copies as within a process and over NCCL as between
// processes, and says how fast each was.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace sluice::tools {

// A table for each way: GB/s from the row's GPU to the column's. Errors: there is no GPU; a transfer failed, or brought
// other bytes than were sent (DATA_LOSS). A way that this build or machine has not is said in its table's place.
absl::StatusOr<std::string> CheckTransfers();

}  // namespace sluice::tools
