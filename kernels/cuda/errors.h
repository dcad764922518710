// CUDA's errors as Status: the call, what it was made for, CUDA's name and words for it, and a remedy.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "cuda_runtime.h"

namespace sluice::cuda {

// `call`: "cudaMalloc", or the name of a kernel's operation; `where`: "stream compute0 of GPU 0 (NVIDIA H100)".
absl::Status CudaError(cudaError_t error, absl::string_view call, absl::string_view where);

// For calls that fail only where something is broken already, on the way down: the error is dropped.
inline void IgnoreError(cudaError_t) {}

}  // namespace sluice::cuda
