// Which lines a job's ranks talk over, where its devices stand in several hosts. Pure functions: world ranks fill one
// host after another.
#pragma once

#include "base/device_description.h"
#include "scheduler/network.h"
#include "scheduler/rank_grid.h"

namespace sluice {

// Of `ranks` ranks, one on each device.
int HostsOf(int ranks, const DeviceDescription& device);

// What the members of a group along `axis` have between them: the network, if any such group spans hosts.
const LinkDescription& LinkAlong(GridAxis axis, const RankGrid& grid, const DeviceDescription& device);

// The pipeline as the simulation sees it. A pipeline whose ranks don't stand side by side, as many on each host, counts
// as one on a host each.
NetworkOptions NetworkOf(const RankGrid& grid, const DeviceDescription& device);

}  // namespace sluice
