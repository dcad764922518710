#include "runtime/planner/hosts.h"

#include <algorithm>
#include <vector>

namespace sluice {
namespace {

int HostOf(WorldRank rank, const DeviceDescription& device) {
  return device.devices_per_host > 0 ? rank.value() / device.devices_per_host : 0;
}

// The first of the ranks that differ from `place` along `axis` alone.
GridPlace FirstAlong(GridAxis axis, GridPlace place) {
  if (axis == GridAxis::kPipeline) place.pipeline = PipelineRank(0);
  if (axis == GridAxis::kData) place.replica = 0;
  if (axis == GridAxis::kTensor) place.shard = 0;
  return place;
}

bool SpansHosts(GridAxis axis, const RankGrid& grid, const DeviceDescription& device) {
  for (int rank = 0; rank < grid.ranks(); ++rank) {
    const WorldRank first = grid.RankOf(FirstAlong(axis, grid.PlaceOf(WorldRank(rank))));
    if (HostOf(first, device) != HostOf(WorldRank(rank), device)) return true;
  }
  return false;
}

// How many neighbours of the first pipeline share each host; 1 if not all hosts have as many.
int PipelineRanksPerHost(const RankGrid& grid, const DeviceDescription& device) {
  std::vector<int> hosts;
  for (int rank = 0; rank < grid.pp(); ++rank) {
    hosts.push_back(HostOf(grid.RankOf({.pipeline = PipelineRank(rank)}), device));
  }
  const auto count = static_cast<int>(std::count(hosts.begin(), hosts.end(), hosts.front()));
  for (int rank = 0; rank < grid.pp(); ++rank) {
    const bool begins = rank % count == 0;
    if (rank > 0 && begins == (hosts[rank] == hosts[rank - 1])) return 1;
  }
  return count;
}

}  // namespace

int HostsOf(int ranks, const DeviceDescription& device) {
  return device.devices_per_host > 0 ? (ranks + device.devices_per_host - 1) / device.devices_per_host : 1;
}

const LinkDescription& LinkAlong(GridAxis axis, const RankGrid& grid, const DeviceDescription& device) {
  return SpansHosts(axis, grid, device) ? device.network : device.peer;
}

NetworkOptions NetworkOf(const RankGrid& grid, const DeviceDescription& device) {
  if (!SpansHosts(GridAxis::kPipeline, grid, device)) return {};
  return {.ranks_per_host = PipelineRanksPerHost(grid, device),
          .host_latency_ns = device.network.latency_ns,
          .host_bytes_per_second = device.network.bytes_per_second};
}

}  // namespace sluice
