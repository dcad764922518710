#include "kernels/cuda/factory.h"

namespace sluice::cuda {
namespace {

absl::Status NotBuiltIn() {
  return absl::FailedPreconditionError(
      "this program was built without CUDA: build it where a CUDA toolkit is found (tools/bazel/cuda/README.md)");
}

}  // namespace

absl::StatusOr<std::vector<CudaDeviceInfo>> FindCudaDevices() { return NotBuiltIn(); }

absl::StatusOr<int64_t> FreeCudaBytes(int) { return NotBuiltIn(); }

absl::StatusOr<std::unique_ptr<Device>> NewCudaDevice(World*, const CudaDeviceOptions&) { return NotBuiltIn(); }

}  // namespace sluice::cuda
