// The Transport suite over NCCL between simulated GPUs: all ranks in one process, and two in each, where the hubs stand
// in for processes that tell each other of errors.
#include "kernels/cuda/factory.h"
#include "runtime/transport/nccl_hub.h"
#include "tests/conformance/transport_conformance.h"
#include "tests/gpu_sim/machine.h"
#include "tests/sim/sim_blob_board.h"
#include "tests/sim/sim_world.h"

namespace sluice {
namespace {

class NcclRig final : public TransportRig {
 public:
  NcclRig(uint64_t seed, int ranks, int ranks_per_process)
      : world_({.seed = seed}),
        machine_({.world = &world_, .devices = ranks, .seed = seed}),
        board_(&world_, (ranks + ranks_per_process - 1) / ranks_per_process),
        unopened_(ranks) {
    for (int rank = 0; rank < ranks; ++rank) {
      auto device = cuda::NewCudaDevice(&world_, {.ordinal = rank});
      EXPECT_TRUE(device.ok()) << device.status();
      devices_.push_back(*std::move(device));
      process_of_.push_back(rank / ranks_per_process);
    }
    for (int process = 0; process <= process_of_.back(); ++process) {
      hubs_.push_back(std::make_unique<NcclHub>(
          &world_,
          NcclHubOptions{.process = process,
                         .process_of = process_of_,
                         .exchange = board_.Of(process),
                         .on_failure = [this, process](const absl::Status& cause) { TellOthers(process, cause); }}));
    }
  }
  ~NcclRig() override {
    closing_ = true;
    hubs_.clear();
    devices_.clear();
    EXPECT_EQ(machine_.ReportText(), "");
  }
  World* world() override { return &world_; }
  Device* device(WorldRank rank) override { return devices_[rank.index()].get(); }
  bool sees_both_ends() const override { return false; }

  absl::StatusOr<std::unique_ptr<Transport>> Open(WorldRank rank, const std::vector<ChannelSpec>& channels,
                                                  const std::vector<GroupSpec>& groups) override {
    const int process = process_of_[rank.index()];
    auto end = hubs_[process]->Open(rank, device(rank), channels, groups);
    if (!end.ok()) return end;
    if (--unopened_ > 0) return end;
    std::vector<absl::Status> statuses(hubs_.size());
    std::vector<EventRef> tasks;
    for (size_t i = 0; i < hubs_.size(); ++i) {
      tasks.push_back(world_.Spawn({.name = "connect"}, [this, &statuses, i] { statuses[i] = hubs_[i]->Connect(); }));
    }
    for (const EventRef& task : tasks) world_.Wait(task).IgnoreError();
    for (const absl::Status& status : statuses) {
      if (!status.ok()) return status;
    }
    return end;
  }

 private:
  // As the control plane does.
  void TellOthers(int process, const absl::Status& cause) {
    for (size_t other = 0; other < hubs_.size() && !closing_; ++other) {
      if (static_cast<int>(other) != process) hubs_[other]->Abort(cause);
    }
  }

  SimWorld world_;
  gpu_sim::Machine machine_;
  SimBlobBoard board_;
  int unopened_;
  std::vector<int> process_of_;
  std::vector<std::unique_ptr<Device>> devices_;
  bool closing_ = false;
  std::vector<std::unique_ptr<NcclHub>> hubs_;
};

std::vector<TransportKind> Kinds() {
  std::vector<TransportKind> kinds;
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    const int per_process = seed % 2 == 0 ? 2 : 4;
    kinds.push_back({absl::StrCat("Seed", seed, per_process == 2 ? "TwoInAProcess" : "OneProcess"),
                     [=](int ranks) { return std::make_unique<NcclRig>(seed, ranks, per_process); }});
  }
  return kinds;
}

INSTANTIATE_TEST_SUITE_P(NcclSim, TransportTest, testing::ValuesIn(Kinds()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace sluice
