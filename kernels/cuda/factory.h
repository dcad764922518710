// GPUs for programs that may have been built without: nothing here needs CUDA's headers.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/world.h"
#include "kernels/device.h"

namespace sluice::cuda {

struct CudaDeviceOptions {
  int ordinal = 0;                 // as CUDA counts, after CUDA_VISIBLE_DEVICES
  int64_t memory_limit_bytes = 0;  // 0: what the GPU has
  // GPUs that this one copies from: directly where their links allow it, else through the host.
  std::vector<int> peers;
};

struct CudaDeviceInfo {
  std::string name;  // "NVIDIA H100 80GB HBM3"
  int major = 0, minor = 0;
  int64_t memory_bytes = 0;
};

// The GPUs of this machine; at least one. FAILED_PRECONDITION says why there is none: not built in, no driver, one that
// is too old, no GPU; and what to do. Sets nothing up on them.
absl::StatusOr<std::vector<CudaDeviceInfo>> FindCudaDevices();

// Bytes that nobody has taken on a GPU. Sets CUDA up on it, which takes some itself, and time.
absl::StatusOr<int64_t> FreeCudaBytes(int ordinal);

// Several devices may share a GPU. Errors: as FindCudaDevices(); RESOURCE_EXHAUSTED. The world outlives the device, and
// everything made from a device goes before it.
absl::StatusOr<std::unique_ptr<Device>> NewCudaDevice(World* world, const CudaDeviceOptions& options);

}  // namespace sluice::cuda
