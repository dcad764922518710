// What all endpoints of an NcclHub share: for each rank and queue a lane with its stream and its operations in posting
// order, first those that have been issued. An operation is issued when it is posted, once the hub is connected.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "base/signal_pool.h"
#include "base/world.h"
#include "kernels/cuda/nccl_rank.h"
#include "runtime/transport/directory.h"
#include "runtime/transport/endpoint.h"
#include "runtime/transport/nccl_event.h"
#include "runtime/transport/nccl_hub.h"
#include "runtime/transport/nccl_order.h"
#include "runtime/transport/nccl_setup.h"
#include "runtime/transport/ring.h"

namespace sluice::internal {

struct NcclOperation : Request {
  bool crosses = false;  // it would meet another message than its own, so it stands still
  Ref<NcclEvent> done;
  EventRef on_device;               // once issued
  std::vector<cuda::NcclLeg> legs;  // while it may not have begun
};

// Where a target leads, for one of its ends.
struct NcclRoute {
  int communicator = 0;  // of the rank's
  int place = 0;         // of a transfer's peer, or of this rank in its group
};

class NcclLane {
 public:
  NcclLane(WorldRank rank, QueueId queue) : rank_(rank), queue_(queue) {}
  WorldRank rank() const { return rank_; }
  QueueId queue() const { return queue_; }

  Ring<NcclOperation> ring;
  size_t issued = 0;
  std::unique_ptr<Stream> stream;
  cuda::NcclRank* nccl = nullptr;  // once connected
  std::vector<std::vector<cuda::NcclLeg>> spare_legs;

 private:
  WorldRank rank_;
  QueueId queue_;
};

class NcclState final : public Hub {
 public:
  NcclState(World* world, NcclHubOptions options);
  ~NcclState() override;

  absl::Status Open(WorldRank rank, Device* device, const std::vector<ChannelSpec>& channels,
                    const std::vector<GroupSpec>& groups);
  absl::Status Connect();
  void Close(WorldRank rank) override;
  EventRef PostTransfer(WorldRank rank, ChannelId channel, Request request) override;
  EventRef PostCollective(WorldRank rank, GroupId group, Request request) override;
  void Abort(absl::Status cause) override;
  bool slots_move() const override { return false; }
  int64_t bytes_moved() const override { return bytes_moved_.load(std::memory_order_relaxed); }

 private:
  EventRef Post(NcclLane* lane, Request request);
  // What only ranks of this process show: that ends don't fit, or never meet.
  absl::Status CheckFit(const NcclLane* lane, NcclOperation* operation);
  void Install(NcclConnections connections);
  void Issue(NcclLane* lane);
  void IssueOn(NcclLane* lane, NcclOperation* operation);
  const NcclRoute& RouteOf(const NcclLane& lane, const Request& request) const;
  // Takes out what has ended. An error of it ends all.
  void Retire(NcclLane* lane);
  void LookForErrors();
  void Fail(absl::Status cause);
  void EndAborted();
  void TellFailure(std::unique_lock<std::mutex>& lock);
  void Leave();
  void Run();

  World* const world_;
  const NcclHubOptions options_;
  const Ref<SignalPool> signals_ = MakeRef<SignalPool>();
  const Ref<NcclEventPool> events_ = MakeRef<NcclEventPool>();
  const Ref<AbortFlag> aborted_ = MakeRef<AbortFlag>();
  Doorbell bell_{signals_};
  std::atomic<int64_t> bytes_moved_{0};

  std::mutex mutex_;
  absl::Status error_;
  bool connected_ = false, closing_ = false, told_ = false;
  Nanoseconds give_up_at_ = 0;  // once there is an error
  bool ticking_ = false;        // the task looks again soon by itself
  Directory<NcclLane> directory_;
  Specs specs_;  // of all ranks here
  std::map<WorldRank, Device*> devices_;
  std::map<WorldRank, std::unique_ptr<cuda::NcclRank>> ranks_;
  // By the lane and the target's index in the directory.
  std::map<std::pair<const NcclLane*, size_t>, NcclRoute> transfers_, collectives_;
  PostingOrder order_;
  EventRef task_;
};

}  // namespace sluice::internal
