// NCCL's errors as Status: the call, who made it, NCCL's words, and a remedy.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "nccl.h"

namespace sluice::cuda {

// `where`: "rank 3 of 8, GPU 1"; `detail`: ncclGetLastError(), which may be empty.
absl::Status NcclError(ncclResult_t result, absl::string_view call, absl::string_view where, absl::string_view detail);

// For calls on the way down: the error is dropped.
inline void IgnoreError(ncclResult_t) {}

}  // namespace sluice::cuda
