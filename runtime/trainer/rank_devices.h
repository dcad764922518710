// The devices of the ranks in one process: each a share of the processors, or a GPU, which several may share.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/world.h"
#include "kernels/cuda/factory.h"
#include "kernels/device.h"
#include "runtime/planner/plan.h"

namespace sluice {

// Which GPU each of `ranks` ranks has: one of its own where there are enough, else neighbours share one.
std::vector<int> SpreadOverGpus(int ranks, int gpus);

// RESOURCE_EXHAUSTED, with the plan's numbers: those of `ranks` that are on this GPU (gpu_of[i] is that of ranks[i])
// need more than it has free.
absl::Status CheckGpuMemory(const Plan& plan, const std::vector<WorldRank>& ranks, const std::vector<int>& gpu_of,
                            int gpu, const cuda::CudaDeviceInfo& info, int64_t free_bytes);

struct RankDevicesOptions {
  std::vector<WorldRank> ranks;  // in this process
  int threads_per_rank = 1;
  std::vector<int> processors;  // that CPU ranks are pinned to; too few: they are not
};

// Threads: any, once made.
class RankDevices {
 public:
  // The plan outlives it. Errors: there is no GPU, or too little memory on one, where the job wants them.
  static absl::StatusOr<RankDevices> Create(const Plan& plan, RankDevicesOptions options);
  absl::StatusOr<std::unique_ptr<Device>> New(World* world, WorldRank rank) const;

 private:
  const Plan* plan_ = nullptr;
  RankDevicesOptions options_;
  std::vector<int> gpu_of_;  // per rank here; empty: they are on the CPU
};

}  // namespace sluice
