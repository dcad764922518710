// The devices of the ranks in one process: each a share of the processors, or a GPU, which several may share.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/world.h"
#include "kernels/cuda/factory.h"
#include "kernels/device.h"
#include "runtime/planner/plan.h"

namespace sluice {

// The GPUs of the ranks in one process among those of the processes on its host.
struct GpuShare {
  std::vector<int> gpus;  // of each rank here, as the user says; empty: chosen
  int local_process = 0, local_processes = 1;
};

// Which of the `gpus` GPUs that this process sees each of its `ranks` ranks has. One of its own where there are enough,
// behind those of the processes before it, unless it sees too few for all of them: then those it sees are taken for its
// own. Else neighbours share one. INVALID_ARGUMENT: the user's list doesn't fit.
absl::StatusOr<std::vector<int>> ChooseGpus(int ranks, int gpus, const GpuShare& share);

// RESOURCE_EXHAUSTED, with the plan's numbers: those of `ranks` that are on this GPU (gpu_of[i] is that of ranks[i])
// need more than it has free.
absl::Status CheckGpuMemory(const Plan& plan, const std::vector<WorldRank>& ranks, const std::vector<int>& gpu_of,
                            int gpu, const cuda::CudaDeviceInfo& info, int64_t free_bytes);

struct RankDevicesOptions {
  std::vector<WorldRank> ranks;  // in this process
  int threads_per_rank = 1;
  std::vector<int> processors;  // that CPU ranks are pinned to; too few: they are not
  GpuShare gpu_share;
  std::function<void(const std::string& algorithms)> measured;  // cuda::CudaDeviceOptions::measured of each GPU rank
};

// Threads: any, once made.
class RankDevices {
 public:
  // The plan outlives it. Errors: there is no GPU, or too little memory on one, where the job wants them.
  static absl::StatusOr<RankDevices> Create(const Plan& plan, RankDevicesOptions options);
  absl::StatusOr<std::unique_ptr<Device>> New(World* world, WorldRank rank) const;
  // "rank 2: GPU 0, rank 3: GPU 1"; empty: they are on the CPU.
  std::string ToText() const;

 private:
  const Plan* plan_ = nullptr;
  RankDevicesOptions options_;
  std::vector<int> gpu_of_;  // per rank here; empty: they are on the CPU
};

}  // namespace sluice
