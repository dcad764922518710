// Which lines ranks talk over, where they stand in several hosts.
#include "runtime/planner/hosts.h"

#include "gtest/gtest.h"

namespace sluice {
namespace {

DeviceDescription Device(int per_host) {
  return {.devices_per_host = per_host,
          .peer = {.bytes_per_second = 100, .latency_ns = 1},
          .network = {.bytes_per_second = 10, .latency_ns = 2}};
}

TEST(Hosts, AreFilledOneAfterAnother) {
  EXPECT_EQ(HostsOf(8, Device(8)), 1);
  EXPECT_EQ(HostsOf(9, Device(8)), 2);
  EXPECT_EQ(HostsOf(1000, Device(0)), 1) << "no end of devices in one host";
}

TEST(Hosts, NeighboursInTheOrderOfRanksStayTogether) {
  const DeviceDescription device = Device(4);
  const RankGrid grid(4, 2, 2);  // shards vary fastest, then replicas: a pipeline rank has 4 neighbours
  EXPECT_EQ(LinkAlong(GridAxis::kTensor, grid, device), device.peer);
  EXPECT_EQ(LinkAlong(GridAxis::kData, grid, device), device.peer);
  EXPECT_EQ(LinkAlong(GridAxis::kPipeline, grid, device), device.network);
  const RankGrid other(4, 2, 2, {GridAxis::kPipeline, GridAxis::kData, GridAxis::kTensor});
  EXPECT_EQ(LinkAlong(GridAxis::kPipeline, other, device), device.peer);
  EXPECT_EQ(LinkAlong(GridAxis::kData, other, device), device.network);
  EXPECT_EQ(LinkAlong(GridAxis::kTensor, other, device), device.network);
}

TEST(Hosts, ThePipelineIsCutWhereHostsEnd) {
  EXPECT_EQ(NetworkOf(RankGrid(8, 1, 1), Device(8)).ranks_per_host, 0) << "one host";
  EXPECT_EQ(NetworkOf(RankGrid(8, 1, 1), Device(4)).ranks_per_host, 4);
  EXPECT_EQ(NetworkOf(RankGrid(8, 2, 1), Device(4)).ranks_per_host, 2) << "each of the four is two replicas";
  EXPECT_EQ(NetworkOf(RankGrid(6, 1, 1), Device(4)).ranks_per_host, 4) << "the last host has fewer";
  EXPECT_EQ(NetworkOf(RankGrid(5, 3, 1), Device(4)).ranks_per_host, 1) << "not as many on each";
  const NetworkOptions network = NetworkOf(RankGrid(8, 1, 1), Device(4));
  EXPECT_EQ(network.host_latency_ns, 2);
  EXPECT_EQ(network.host_bytes_per_second, 10);
  EXPECT_TRUE(network.Competes());
}

}  // namespace
}  // namespace sluice
