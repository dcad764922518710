#include "kernels/cuda/nccl_rank.h"

namespace sluice::cuda {
namespace {

absl::Status NotBuiltIn() {
  return absl::FailedPreconditionError(
      "GPUs of several processes reach each other over NCCL, and this program was built without: build it where "
      "nccl.h and libnccl lie beside the CUDA toolkit (tools/bazel/cuda/README.md), or run all ranks in one process");
}

}  // namespace

absl::StatusOr<std::string> NewNcclId() { return NotBuiltIn(); }

absl::StatusOr<std::string> NcclVersion() { return NotBuiltIn(); }

absl::StatusOr<std::unique_ptr<NcclRank>> NcclRank::Join(World*, Device*, const NcclRankOptions&) {
  return NotBuiltIn();
}

}  // namespace sluice::cuda
