// What all endpoints of one process share: for each of its ranks and queues the lane of pending operations, and how
// they progress. A transfer between two of its ranks is made when both halves stand at the head of their lanes and what
// they wait for is done. One with a rank of another process is given to the lane's GlooLane when it stands at the head,
// with those of the same channel that follow it: they can't overtake it. A collective starts when all members of this
// process have it at the head of their lanes.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "base/signal_pool.h"
#include "base/world.h"
#include "runtime/transport/collective.h"
#include "runtime/transport/copy_team.h"
#include "runtime/transport/directory.h"
#include "runtime/transport/endpoint.h"
#include "runtime/transport/gloo_lane.h"
#include "runtime/transport/lane.h"

namespace sluice::internal {

class HubState final : public Hub {
 public:
  // `process_of`: of each world rank. This one is `self`.
  HubState(World* world, std::vector<int> process_of, int self);
  ~HubState() override;

  absl::Status Open(WorldRank rank, const std::vector<ChannelSpec>& channels, const std::vector<GroupSpec>& groups);
  void Close(WorldRank rank) override;
  EventRef PostTransfer(WorldRank rank, ChannelId channel, Request request) override;
  EventRef PostCollective(WorldRank rank, GroupId group, Request request) override;
  void Abort(absl::Status cause) override;
  bool slots_move() const override { return true; }
  // Of all ranks of this process.
  int64_t bytes_moved() const override;

  // What this process's ranks have opened and that has ends in other processes.
  void RemoteSpecs(std::vector<ChannelSpec>* channels, std::vector<GroupSpec>* groups) const;
  // The connections to other processes, by process, null where there is none. Called once, after all Open().
  void Connect(std::vector<std::unique_ptr<GlooLink>> links);

 private:
  using Channel = Directory<Lane>::Channel;
  using Group = Directory<Lane>::Group;

  // hub_state.cc: opening and closing, posting, errors.
  EventRef Post(Lane* lane, Operation operation);
  // Ends all, if any operation waits for the rank.
  void Leave(WorldRank rank);
  void HearLastWords(int process, const absl::Status& words);
  // The first cause wins and completes what is pending; what is moving is completed when its memory is no longer
  // touched.
  void Fail(absl::Status cause);
  void TellOthers();
  void CompletePending();
  std::vector<Lane*> RemoteLanes() const;
  static Lane* FirstLane(const Group& group);
  void RingIfWanted();

  // hub_progress.cc
  // Makes all transfers that are possible, starting from the head of `lane`.
  void Advance(Lane* lane);
  bool AdvanceHead(Lane* lane);
  // Whether the operation's turn has come as far as its own rank is concerned. An error of what it waits for ends all.
  bool Ready(const Lane& lane, const Operation& operation);
  void Transfer(Lane* send, Lane* recv);
  // Gives the transfers at the head of the lane to its GlooLane. True: the first has ended already.
  bool StartTransfers(Lane* lane);
  // Whether the group is at the head of the lanes of all its members here.
  bool IsReady(size_t group);
  // The members' ends, whose operations are moving from now on.
  void TakeMembers(const Group& group, std::vector<Member>* members);
  void StartCollective(const Group& group);
  // Copies without the lock, what is much by the team.
  void Exchange(size_t group, std::unique_lock<std::mutex>& lock);
  std::optional<size_t> ReadyLocalGroup();
  // Ends the operation at the head of the lane, for all members here if it is a collective.
  void RemoteEnded(Lane* lane, const absl::Status& status, Nanoseconds began, Nanoseconds ended);
  // Ends the operations at the heads of the lanes.
  void Ended(absl::Span<Lane* const> lanes, const absl::Status& status, Nanoseconds began, Nanoseconds ended);
  void End(absl::Span<Lane* const> lanes, const absl::Status& status, Nanoseconds began, Nanoseconds ended);
  void Run();

  World* const world_;
  const Ref<SignalPool> signals_ = MakeRef<SignalPool>();
  Doorbell bell_{signals_};

  mutable std::mutex mutex_;
  absl::Status error_;
  bool closing_ = false;
  bool wants_task_ = false;  // some head waits for an event, or a collective may be ready
  // What heads were seen to wait for while the task looked at all lanes; null at other times. Asking them again
  // afterwards would miss an event that was done in between.
  std::vector<EventRef>* seen_pending_ = nullptr;
  Directory<Lane> directory_;
  // Per group that is under way in this process.
  struct Exchanged {
    std::vector<Member> members;
    CollectivePlan plan;
  };
  std::map<size_t, Exchanged> exchanges_;
  std::vector<Lane*> work_;                       // of Advance()
  std::vector<std::unique_ptr<GlooLink>> links_;  // once connected
  std::map<Lane*, std::unique_ptr<GlooLane>> remote_lanes_;
  std::unique_ptr<CopyTeam> copy_team_;
  EventRef task_;
};

}  // namespace sluice::internal
