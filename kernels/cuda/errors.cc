#include "kernels/cuda/errors.h"

#include "absl/strings/str_cat.h"

namespace sluice::cuda {
namespace {

struct Advice {
  absl::StatusCode code;
  absl::string_view remedy;
};

// Which errors can't be mended without leaving the process, and which are the machine's.
Advice AdviceFor(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation:
      return {absl::StatusCode::kResourceExhausted,
              "see who else uses this GPU (nvidia-smi), or take more stages, smaller micro-batches or recompute"};
    case cudaErrorInsufficientDriver:
      return {absl::StatusCode::kFailedPrecondition, "update the NVIDIA driver, or train with --device cpu"};
    case cudaErrorNoDevice:
      return {absl::StatusCode::kFailedPrecondition,
              "see that the driver is loaded (nvidia-smi) and that CUDA_VISIBLE_DEVICES is not empty"};
    case cudaErrorInvalidDevice:
      return {absl::StatusCode::kFailedPrecondition, "there are fewer GPUs than that; see `sluice devices`"};
    case cudaErrorDevicesUnavailable:
      return {absl::StatusCode::kUnavailable, "another process has the GPU for itself (compute mode); end it"};
    case cudaErrorNoKernelImageForDevice:
      return {absl::StatusCode::kFailedPrecondition, "build for this GPU's architecture: --//:cuda_archs"};
    case cudaErrorECCUncorrectable:
      return {absl::StatusCode::kUnavailable, "the GPU's memory has an error: reset or replace it"};
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorIllegalInstruction:
    case cudaErrorAssert:
    case cudaErrorLaunchFailure:
      return {absl::StatusCode::kInternal,
              "a kernel issued before it is wrong: run with CUDA_LAUNCH_BLOCKING=1, or under compute-sanitizer"};
    case cudaErrorLaunchTimeout:
      return {absl::StatusCode::kUnavailable, "the GPU also drives a display, which limits how long a kernel may run"};
    case cudaErrorInvalidConfiguration:
    case cudaErrorLaunchOutOfResources:
      return {absl::StatusCode::kInternal, "this shape is not supported by the kernel: please report it"};
    default:
      return {absl::StatusCode::kInternal, "look for the GPU's own message with dmesg (NVRM, Xid)"};
  }
}

}  // namespace

absl::Status CudaError(cudaError_t error, absl::string_view call, absl::string_view where) {
  const Advice advice = AdviceFor(error);
  return absl::Status(advice.code, absl::StrCat(call, " on ", where, ": ", cudaGetErrorName(error), ", ",
                                                cudaGetErrorString(error), "; ", advice.remedy));
}

}  // namespace sluice::cuda
