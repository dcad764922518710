// What all endpoints of a PeerHub share: for each rank and queue a lane with its operations in posting order, first
// those that have been issued to streams, then those that wait for their other ends. An operation is issued when it is
// the first of the waiting ones in all lanes that it belongs to; streams see to it that it runs after those before it.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "base/relay_event.h"
#include "base/signal_pool.h"
#include "base/world.h"
#include "kernels/operations.h"
#include "runtime/transport/directory.h"
#include "runtime/transport/endpoint.h"
#include "runtime/transport/ring.h"

namespace sluice::internal {

struct PeerOperation : Request {
  Ref<RelayEvent> done;
  EventRef copied;   // once issued: the device's event that `done` stands for
  int commands = 0;  // in its lane's stream
};

class PeerLane {
 public:
  PeerLane(WorldRank rank, QueueId queue) : rank_(rank), queue_(queue) {}
  WorldRank rank() const { return rank_; }
  QueueId queue() const { return queue_; }
  PeerOperation* waiting() { return issued < ring.size() ? &ring[issued] : nullptr; }

  Ring<PeerOperation> ring;
  size_t issued = 0;
  int commands = 0;  // of those
  const Operations* operations = nullptr;
  std::unique_ptr<Stream> stream;  // on the rank's device, until it closes
  // When all that has been issued has ended, and which stream recorded it.
  EventRef last;
  const Stream* last_on = nullptr;

 private:
  WorldRank rank_;
  QueueId queue_;
};

class PeerState final : public Hub {
 public:
  PeerState(World* world, int ranks);
  ~PeerState() override;

  absl::Status Open(WorldRank rank, Device* device, const std::vector<ChannelSpec>& channels,
                    const std::vector<GroupSpec>& groups);
  void Close(WorldRank rank) override;
  EventRef PostTransfer(WorldRank rank, ChannelId channel, Request request) override;
  EventRef PostCollective(WorldRank rank, GroupId group, Request request) override;
  void Abort(absl::Status cause) override;
  bool slots_move() const override { return false; }
  int64_t bytes_moved() const override { return 0; }

 private:
  using Channel = Directory<PeerLane>::Channel;
  using Group = Directory<PeerLane>::Group;

  EventRef Post(PeerLane* lane, Request request);
  // Issues all that can be, starting from `lane`.
  void Advance(PeerLane* lane);
  bool AdvanceOnce(PeerLane* lane);
  bool IssueTransfer(const Channel& channel);
  bool IssueCollective(const Group& group);
  void IssueCopies(const Group& group);
  // The next waiting operation of the lane has been issued.
  void MarkIssued(PeerLane* lane, const EventRef& copied, const Stream* on, int commands);
  // Takes out what has ended. An error of it ends all.
  void Retire(PeerLane* lane);
  void Fail(absl::Status cause);
  void Run();
  // The task has to look at an event that it doesn't know.
  void RingIfAsleep(const EventRef& event);

  World* const world_;
  const Ref<SignalPool> signals_ = MakeRef<SignalPool>();
  const Ref<RelayPool> relays_ = MakeRef<RelayPool>();
  Doorbell bell_{signals_};

  std::mutex mutex_;
  absl::Status error_;
  bool closing_ = false;
  bool ticking_ = false;  // the task looks again soon by itself
  Directory<PeerLane> directory_;
  std::vector<PeerLane*> work_;  // of Advance()
  std::vector<Member> members_;  // of the collective at hand,
  CollectivePlan plan_;          // and its copies
  EventRef task_;
};

}  // namespace sluice::internal
