#include "runtime/trainer/rank_devices.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status.h"
#include "kernels/cpu/cpu_device.h"

namespace sluice {
namespace {

// What a rank takes of a GPU besides what is planned: workspaces, rounding, what CUDA keeps for itself.
constexpr int64_t kRankOverheadBytes = int64_t{256} << 20;

std::string Mebibytes(int64_t bytes) { return absl::StrCat((bytes + (1 << 20) - 1) >> 20, " MiB"); }

int64_t PlannedBytes(const Plan& plan, WorldRank rank) {
  const PipelineRank place = plan.job.layout.grid().PlaceOf(rank).pipeline;
  return plan.report.ranks[place.index()].allocated_bytes;
}

}  // namespace

absl::StatusOr<std::vector<int>> ChooseGpus(int ranks, int gpus, const GpuShare& share) {
  std::vector<int> gpu_of = share.gpus;
  for (const int gpu : gpu_of) {
    if (static_cast<int>(gpu_of.size()) == ranks && gpu >= 0 && gpu < gpus) continue;
    return absl::InvalidArgumentError(absl::StrCat("GPUs ", absl::StrJoin(gpu_of, ","), " for ", ranks,
                                                   " ranks: one for each, from 0 to ", gpus - 1));
  }
  if (!gpu_of.empty()) return gpu_of;
  const int first = ranks * share.local_processes <= gpus ? ranks * share.local_process : 0;
  for (int rank = 0; rank < ranks; ++rank) gpu_of.push_back(ranks <= gpus ? first + rank : rank * gpus / ranks);
  return gpu_of;
}

absl::Status CheckGpuMemory(const Plan& plan, const std::vector<WorldRank>& ranks, const std::vector<int>& gpu_of,
                            int gpu, const cuda::CudaDeviceInfo& info, int64_t free_bytes) {
  std::string each;
  int64_t bytes = 0;
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (gpu_of[i] != gpu) continue;
    const int64_t planned = PlannedBytes(plan, ranks[i]);
    bytes += planned + kRankOverheadBytes;
    absl::StrAppend(&each, each.empty() ? "" : ", ", "rank ", ranks[i].value(), " ", Mebibytes(planned));
  }
  if (bytes <= free_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "GPU ", gpu, " (", info.name, ") has ", Mebibytes(free_bytes), " free of ", Mebibytes(info.memory_bytes),
      ", and needs ", Mebibytes(bytes), " (planned: ", each, "; and ", Mebibytes(kRankOverheadBytes),
      " a rank for workspaces): take more stages, smaller micro-batches or recompute, or see who else uses it"));
}

absl::StatusOr<RankDevices> RankDevices::Create(const Plan& plan, RankDevicesOptions options) {
  RankDevices devices;
  devices.plan_ = &plan;
  devices.options_ = std::move(options);
  if (plan.job.layout.device != DeviceKind::kCuda) return devices;
  ASSIGN_OR_RETURN(const std::vector<cuda::CudaDeviceInfo> gpus, cuda::FindCudaDevices());
  const std::vector<WorldRank>& ranks = devices.options_.ranks;
  ASSIGN_OR_RETURN(devices.gpu_of_, ChooseGpus(static_cast<int>(ranks.size()), static_cast<int>(gpus.size()),
                                               devices.options_.gpu_share));
  for (const int gpu : std::set<int>(devices.gpu_of_.begin(), devices.gpu_of_.end())) {
    ASSIGN_OR_RETURN(const int64_t free_bytes, cuda::FreeCudaBytes(gpu));
    RETURN_IF_ERROR(CheckGpuMemory(plan, ranks, devices.gpu_of_, gpu, gpus[gpu], free_bytes));
  }
  return devices;
}

std::string RankDevices::ToText() const {
  std::string text;
  for (size_t i = 0; i < gpu_of_.size(); ++i) {
    absl::StrAppend(&text, i > 0 ? ", " : "", "rank ", options_.ranks[i].value(), ": GPU ", gpu_of_[i]);
  }
  return text;
}

absl::StatusOr<std::unique_ptr<Device>> RankDevices::New(World* world, WorldRank rank) const {
  const size_t here = std::find(options_.ranks.begin(), options_.ranks.end(), rank) - options_.ranks.begin();
  const auto& limits = plan_->job.layout.memory_limit;
  const PipelineRank place = plan_->job.layout.grid().PlaceOf(rank).pipeline;
  const int64_t limit = limits.empty() ? 0 : limits[place.index()];
  if (!gpu_of_.empty()) {
    return cuda::NewCudaDevice(world, {.ordinal = gpu_of_[here],
                                       .memory_limit_bytes = limit,
                                       .peers = gpu_of_,
                                       .algorithms = plan_->job.layout.algorithms_text,
                                       .algorithms_file = plan_->job.layout.algorithms,
                                       .measured = options_.measured});
  }
  cpu::CpuDeviceOptions options{.threads = options_.threads_per_rank, .memory_limit_bytes = limit};
  const size_t threads = options_.threads_per_rank;
  if (options_.processors.size() >= threads * options_.ranks.size()) {
    const auto first = options_.processors.begin() + static_cast<int64_t>(here * threads);
    options.processors = {first, first + static_cast<int64_t>(threads)};
  }
  return cpu::NewCpuDevice(world, options);
}

}  // namespace sluice
