// The Transport suite between simulated GPUs of one process, and between ranks that share one.
#include "kernels/cuda/factory.h"
#include "runtime/transport/peer_hub.h"
#include "tests/conformance/transport_conformance.h"
#include "tests/gpu_sim/machine.h"
#include "tests/sim/sim_world.h"

namespace sluice {
namespace {

class GpuRig final : public TransportRig {
 public:
  GpuRig(uint64_t seed, int ranks, int gpus)
      : world_({.seed = seed}), machine_({.world = &world_, .devices = gpus, .seed = seed}) {
    for (int rank = 0; rank < ranks; ++rank) {
      auto device = cuda::NewCudaDevice(&world_, {.ordinal = rank % gpus});
      EXPECT_TRUE(device.ok()) << device.status();
      devices_.push_back(*std::move(device));
    }
    hub_ = std::make_unique<PeerHub>(&world_, ranks);
  }
  ~GpuRig() override {
    hub_ = nullptr;
    devices_.clear();
    EXPECT_EQ(machine_.ReportText(), "");
  }
  World* world() override { return &world_; }
  Device* device(WorldRank rank) override { return devices_[rank.index()].get(); }
  absl::StatusOr<std::unique_ptr<Transport>> Open(WorldRank rank, const std::vector<ChannelSpec>& channels,
                                                  const std::vector<GroupSpec>& groups) override {
    return hub_->Open(rank, device(rank), channels, groups);
  }

 private:
  SimWorld world_;
  gpu_sim::Machine machine_;
  std::vector<std::unique_ptr<Device>> devices_;
  std::unique_ptr<PeerHub> hub_;
};

std::vector<TransportKind> Kinds() {
  std::vector<TransportKind> kinds;
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    const int gpus = seed % 3 == 0 ? 1 : 4;
    kinds.push_back({absl::StrCat("Seed", seed, "On", gpus),
                     [=](int ranks) { return std::make_unique<GpuRig>(seed, ranks, gpus); }});
  }
  return kinds;
}

INSTANTIATE_TEST_SUITE_P(GpuSim, TransportTest, testing::ValuesIn(Kinds()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace sluice
