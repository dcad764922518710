// What the ranks of a hub have opened: channels and groups, each with the lanes of its ends, checked against one
// another. A Lane is whatever the hub keeps per rank and queue, made as Lane(rank, queue). Not thread-safe.
#pragma once

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "runtime/transport/collective.h"
#include "runtime/transport/request.h"
#include "runtime/transport/specs.h"

namespace sluice::internal {

template <class Lane>
class Directory {
 public:
  struct Channel {
    ChannelSpec spec;
    int other_process = 0;  // this one, if both ends live here
    Lane* send = nullptr;   // once its end has opened it; null for an end in another process
    Lane* recv = nullptr;
  };
  struct Group {
    GroupSpec spec;
    bool is_local = true;
    std::vector<Lane*> lanes;  // per member, once it has opened the group; null for members in other processes
  };
  using Lanes = std::map<std::pair<WorldRank, QueueId>, std::unique_ptr<Lane>>;

  // `process_of`: of each world rank. This one is `self`.
  Directory(std::vector<int> process_of, int self);

  // INVALID_ARGUMENT: there is no such rank in this process. ALREADY_EXISTS.
  absl::Status CheckMayOpen(WorldRank rank) const;
  // INVALID_ARGUMENT: a channel or group that can't be, that two ends describe differently, or that only one has; the
  // rank then counts as one that has left. REQUIRES: it may open.
  absl::Status Open(WorldRank rank, const std::vector<ChannelSpec>& channels, const std::vector<GroupSpec>& groups);
  void MarkClosed(WorldRank rank);

  int self() const { return self_; }
  int ranks() const { return static_cast<int>(process_of_.size()); }
  int ProcessOf(WorldRank rank) const { return process_of_[rank.index()]; }
  bool IsHere(WorldRank rank) const { return ProcessOf(rank) == self_; }
  bool IsOpen(WorldRank rank) const { return presence_[rank.index()] == Presence::kOpen; }
  const Lanes& lanes() const { return lanes_; }
  const std::deque<Channel>& channels() const { return channels_; }
  const std::deque<Group>& groups() const { return groups_; }
  const Channel& channel(const Request& request) const { return channels_[request.target]; }
  const Group& group(const Request& request) const { return groups_[request.target]; }

  // The lane on which a rank posts, and the request's target. REQUIRES: the rank has opened it.
  Lane* Aim(WorldRank rank, ChannelId id, Request* transfer) const;
  Lane* Aim(WorldRank rank, GroupId id, Request* collective) const;
  // Why the rank's request can't be met: INVALID_ARGUMENT its slot is too small, UNAVAILABLE a partner has left.
  absl::Status Check(WorldRank rank, const Request& request) const;
  bool TakesPart(const Request& request, WorldRank rank) const;
  std::string Describe(const Request& request) const;

  // Of a collective that is at the head of its members' lanes; request_of(lane) is each one's.
  template <class RequestOf>
  absl::Status CheckKinds(const Group& group, RequestOf request_of) const;
  // In place of what is in `members`.
  template <class RequestOf>
  void TakeMembers(const Group& group, RequestOf request_of, std::vector<Member>* members) const;

 private:
  enum class Presence : uint8_t { kUnopened, kOpen, kElsewhere, kClosed };
  absl::Status OpenChannel(WorldRank rank, const ChannelSpec& spec);
  absl::Status OpenGroup(WorldRank rank, const GroupSpec& spec);
  absl::Status CheckOtherEnds(WorldRank rank) const;
  Lane* LaneOf(WorldRank rank, QueueId queue);

  const std::vector<int> process_of_;
  const int self_;
  std::vector<Presence> presence_;
  std::vector<WorldRank> closed_;
  Lanes lanes_;
  std::deque<Channel> channels_;
  std::deque<Group> groups_;
  std::map<ChannelId, size_t> channel_index_;
  std::map<GroupId, size_t> group_index_;
};

}  // namespace sluice::internal

#include "runtime/transport/directory-inl.h"
