// How processes come to the communicators that they share, over blobs that the control plane carries:
//   nccl/version, nccl/specs   which NCCL each has, and what it has opened; all check what concerns them
//   nccl/id                    the verdict, and from process 0 the id of the world
//   nccl/connected             what came of joining, splitting, and a first exchange over every connection
#pragma once

#include <map>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "base/world.h"
#include "kernels/cuda/nccl_rank.h"
#include "runtime/transport/nccl_hub.h"
#include "runtime/transport/nccl_plan.h"

namespace sluice::internal {

struct NcclConnections {
  CommunicatorPlan plan;
  std::map<WorldRank, std::unique_ptr<cuda::NcclRank>> ranks;  // of this process
  std::map<std::pair<WorldRank, QueueId>, std::unique_ptr<Stream>> streams;
};

// `devices`: of the ranks of this process. Nothing that is waited for takes longer than the options' limit, but the
// exchanges, whose limits are the control plane's. All processes return an error if one does.
absl::StatusOr<NcclConnections> ConnectOverNccl(World* world, const NcclHubOptions& options, const Specs& specs,
                                                const std::map<WorldRank, Device*>& devices);

}  // namespace sluice::internal
