#include "kernels/cuda/nccl_errors.h"

#include "absl/strings/str_cat.h"

namespace sluice::cuda {
namespace {

struct Advice {
  absl::StatusCode code;
  absl::string_view remedy;
};

Advice AdviceFor(ncclResult_t result) {
  switch (result) {
    case ncclUnhandledCudaError:
      return {absl::StatusCode::kInternal, "see the GPU's own message (dmesg), and whether its memory is full"};
    case ncclSystemError:
      return {absl::StatusCode::kUnavailable,
              "the network or shared memory: name the interface (NCCL_SOCKET_IFNAME), give containers a larger "
              "/dev/shm (--shm-size), see that ports are open between the hosts"};
    case ncclRemoteError:
      return {absl::StatusCode::kUnavailable, "another process has ended, or the connection to it broke: see its log"};
    case ncclInProgress:
      return {absl::StatusCode::kDeadlineExceeded, "it never came to an end: a rank that is stopped, or a full queue"};
    case ncclInvalidUsage:
      return {absl::StatusCode::kFailedPrecondition,
              "two ranks on one GPU (give each its own: CUDA_VISIBLE_DEVICES), or processes with different NCCL"};
    default:
      return {absl::StatusCode::kInternal, "please report it"};
  }
}

}  // namespace

absl::Status NcclError(ncclResult_t result, absl::string_view call, absl::string_view where, absl::string_view detail) {
  const Advice advice = AdviceFor(result);
  return absl::Status(advice.code,
                      absl::StrCat(call, " by ", where, ": ", ncclGetErrorString(result), detail.empty() ? "" : ", ",
                                   detail, "; ", advice.remedy, "; NCCL_DEBUG=INFO says more"));
}

}  // namespace sluice::cuda
