// The transport of several processes: the promises of every transport, with hubs that are joined over Gloo's loopback
// standing in for processes, and what is its own. Real processes that die: gloo_process_test.
#include "runtime/transport/gloo_hub.h"

#include <numeric>
#include <thread>

#include "tests/conformance/transport_conformance.h"
#include "tests/runtime/transport/blob_board.h"
#include "tests/sim/test_device.h"

namespace sluice {
namespace {

// Rank r lives in process r / ranks_per_process; all connect once the last one has opened.
class GlooRig final : public TransportRig {
 public:
  GlooRig(int ranks, int ranks_per_process)
      : world_(NewRealWorld()), unopened_(ranks), board_((ranks + ranks_per_process - 1) / ranks_per_process) {
    std::vector<int> process_of(ranks);
    for (int rank = 0; rank < ranks; ++rank) {
      process_of[rank] = rank / ranks_per_process;
      devices_.push_back(std::make_unique<TestDevice>(world_.get(), TestDeviceOptions{}));
    }
    for (int process = 0; process <= process_of.back(); ++process) {
      hubs_.push_back(std::make_unique<GlooHub>(
          world_.get(), GlooHubOptions{.process = process, .process_of = process_of, .exchange = board_.Of(process)}));
    }
    process_of_ = process_of;
  }
  World* world() override { return world_.get(); }
  Device* device(WorldRank rank) override { return devices_[rank.index()].get(); }
  GlooHub* hub(int process) { return hubs_[process].get(); }
  void CloseHub(int process) { hubs_[process] = nullptr; }

  absl::StatusOr<std::unique_ptr<Transport>> Open(WorldRank rank, const std::vector<ChannelSpec>& channels,
                                                  const std::vector<GroupSpec>& groups) override {
    auto end = hubs_[process_of_[rank.index()]]->Open(rank, channels, groups);
    if (--unopened_ > 0 || !end.ok()) return end;
    std::vector<absl::Status> statuses(hubs_.size());
    std::vector<EventRef> tasks;
    for (size_t i = 0; i < hubs_.size(); ++i) {
      tasks.push_back(world_->Spawn({.name = "connect"}, [this, &statuses, i] { statuses[i] = hubs_[i]->Connect(); }));
    }
    for (const EventRef& task : tasks) world_->Wait(task).IgnoreError();
    for (const absl::Status& status : statuses) {
      if (!status.ok()) return status;
    }
    return end;
  }

 private:
  const std::unique_ptr<World> world_;
  int unopened_;
  BlobBoard board_;
  std::vector<int> process_of_;
  std::vector<std::unique_ptr<Device>> devices_;
  std::vector<std::unique_ptr<GlooHub>> hubs_;
};

std::vector<TransportKind> Kinds() {
  return {{"ARankAProcess", [](int ranks) { return std::make_unique<GlooRig>(ranks, 1); }},
          {"TwoRanksAProcess", [](int ranks) { return std::make_unique<GlooRig>(ranks, 2); }}};
}

INSTANTIATE_TEST_SUITE_P(Gloo, TransportTest, testing::ValuesIn(Kinds()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace sluice
