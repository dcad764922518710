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

inline CollectiveKind KindOf(const Request& collective) {
  return collective.kind == Request::Kind::kAllGather ? CollectiveKind::kAllGather : CollectiveKind::kAllToAll;
}

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
  // No endpoint may outlive its hub.
  void CheckNoneIsOpen() const;

  int self() const { return self_; }
  int ranks() const { return static_cast<int>(process_of_.size()); }
  int ProcessOf(WorldRank rank) const { return process_of_[rank.index()]; }
  bool IsHere(WorldRank rank) const { return ProcessOf(rank) == self_; }
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
  // Where operations are issued to a device: lanes have a `ring` of them, of which the first `issued` have been. What
  // is to be said of one that has failed there with `status`: the error of what any of them waited for or, if all that
  // is fine, its own.
  absl::Status Explain(const Lane& lane, const Request& failed, const absl::Status& status) const;

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

template <class Lane>
Directory<Lane>::Directory(std::vector<int> process_of, int self) : process_of_(std::move(process_of)), self_(self) {
  for (const int process : process_of_) {
    presence_.push_back(process == self ? Presence::kUnopened : Presence::kElsewhere);
  }
}

template <class Lane>
Lane* Directory<Lane>::LaneOf(WorldRank rank, QueueId queue) {
  std::unique_ptr<Lane>& lane = lanes_[{rank, queue}];
  if (lane == nullptr) lane = std::make_unique<Lane>(rank, queue);
  return lane.get();
}

template <class Lane>
absl::Status Directory<Lane>::CheckMayOpen(WorldRank rank) const {
  if (!rank.valid() || rank.index() >= presence_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank ", rank.value(), " opens an endpoint, but there are ranks 0 to ", presence_.size() - 1));
  }
  if (!IsHere(rank)) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank ", rank.value(), " belongs to process ", ProcessOf(rank), ", this is process ", self_));
  }
  if (presence_[rank.index()] != Presence::kUnopened) {
    return absl::AlreadyExistsError(absl::StrCat("rank ", rank.value(), " has opened its endpoint already"));
  }
  return absl::OkStatus();
}

template <class Lane>
absl::Status Directory<Lane>::Open(WorldRank rank, const std::vector<ChannelSpec>& channels,
                                   const std::vector<GroupSpec>& groups) {
  presence_[rank.index()] = Presence::kOpen;
  absl::Status status;
  for (const ChannelSpec& spec : channels) status.Update(OpenChannel(rank, spec));
  for (const GroupSpec& spec : groups) status.Update(OpenGroup(rank, spec));
  if (status.ok()) status = CheckOtherEnds(rank);
  if (!status.ok()) MarkClosed(rank);
  return status;
}

template <class Lane>
void Directory<Lane>::MarkClosed(WorldRank rank) {
  presence_[rank.index()] = Presence::kClosed;
  closed_.push_back(rank);
}

template <class Lane>
void Directory<Lane>::CheckNoneIsOpen() const {
  for (size_t rank = 0; rank < presence_.size(); ++rank) {
    CHECK(presence_[rank] != Presence::kOpen) << "the endpoint of rank " << rank << " outlives its hub";
  }
}

template <class Lane>
absl::Status Directory<Lane>::OpenChannel(WorldRank rank, const ChannelSpec& spec) {
  const bool sends = spec.sender == rank;
  const WorldRank other = sends ? spec.receiver : spec.sender;
  if ((!sends && spec.receiver != rank) || other == rank || other.index() >= presence_.size() || spec.bytes <= 0) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", rank.value(), " can't open ", ToString(spec),
                                                   ": it must join this rank to another one and carry bytes"));
  }
  const auto [found, fresh] = channel_index_.try_emplace(spec.id, channels_.size());
  if (fresh) channels_.push_back({.spec = spec, .other_process = ProcessOf(other)});
  Channel& channel = channels_[found->second];
  Lane*& mine = sends ? channel.send : channel.recv;
  if (channel.spec != spec || mine != nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        "channel ", spec.id.value(), " is not the same at its two ends; opened first: ", ToString(channel.spec),
        "; rank ", rank.value(), " opens: ", ToString(spec)));
  }
  mine = LaneOf(rank, spec.queue);
  return absl::OkStatus();
}

template <class Lane>
absl::Status Directory<Lane>::OpenGroup(WorldRank rank, const GroupSpec& spec) {
  const auto place = std::find(spec.members.begin(), spec.members.end(), rank);
  const bool known = std::all_of(spec.members.begin(), spec.members.end(),
                                 [&](WorldRank member) { return member.valid() && member.index() < presence_.size(); });
  if (place == spec.members.end() || !known || std::count(spec.members.begin(), spec.members.end(), rank) != 1) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", rank.value(), " can't open ", ToString(spec),
                                                   ": it must name this rank once, and no unknown rank"));
  }
  const auto [found, fresh] = group_index_.try_emplace(spec.id, groups_.size());
  if (fresh) {
    const bool is_local = std::all_of(spec.members.begin(), spec.members.end(), [&](WorldRank m) { return IsHere(m); });
    groups_.push_back({.spec = spec, .is_local = is_local, .lanes = std::vector<Lane*>(spec.members.size())});
  }
  Group& group = groups_[found->second];
  if (group.spec != spec || group.lanes[place - spec.members.begin()] != nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        "group ", spec.id.value(), " is not the same for its members; opened first: ", ToString(group.spec), "; rank ",
        rank.value(), " opens: ", ToString(spec)));
  }
  group.lanes[place - spec.members.begin()] = LaneOf(rank, spec.queue);
  return absl::OkStatus();
}

// Once both ends have opened, each has what the other has.
template <class Lane>
absl::Status Directory<Lane>::CheckOtherEnds(WorldRank rank) const {
  const auto lacks = [&](WorldRank end, const Lane* lane) {
    const Presence presence = presence_[end.index()];
    return lane == nullptr && presence != Presence::kUnopened && presence != Presence::kElsewhere;
  };
  const auto missing = [&](WorldRank at, const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", at.value(), " has no ", what));
  };
  for (const Channel& channel : channels_) {
    const ChannelSpec& spec = channel.spec;
    if (spec.sender != rank && spec.receiver != rank) continue;
    for (const auto& [end, lane] : {std::pair(spec.sender, channel.send), std::pair(spec.receiver, channel.recv)}) {
      if (lacks(end, lane)) return missing(end, ToString(spec));
    }
  }
  for (const Group& group : groups_) {
    for (size_t i = 0; i < group.lanes.size(); ++i) {
      const WorldRank member = group.spec.members[i];
      if (lacks(member, group.lanes[i])) return missing(member, ToString(group.spec));
    }
  }
  return absl::OkStatus();
}

template <class Lane>
Lane* Directory<Lane>::Aim(WorldRank rank, ChannelId id, Request* transfer) const {
  CHECK(transfer->slot != nullptr) << "a transfer needs a slot";
  const auto found = channel_index_.find(id);
  CHECK(found != channel_index_.end()) << "rank " << rank << " has not opened channel " << id;
  transfer->target = found->second;
  const Channel& channel = channels_[found->second];
  Lane* lane = transfer->kind == Request::Kind::kSend ? channel.send : channel.recv;
  CHECK(lane != nullptr && lane->rank() == rank)
      << "rank " << rank << " uses the wrong end of " << ToString(channel.spec);
  return lane;
}

template <class Lane>
Lane* Directory<Lane>::Aim(WorldRank rank, GroupId id, Request* collective) const {
  const auto found = group_index_.find(id);
  CHECK(found != group_index_.end()) << "rank " << rank << " has not opened group " << id;
  collective->target = found->second;
  const Group& group = groups_[found->second];
  const auto place = std::find(group.spec.members.begin(), group.spec.members.end(), rank);
  CHECK(place != group.spec.members.end()) << "rank " << rank << " is no member of " << ToString(group.spec);
  return group.lanes[place - group.spec.members.begin()];
}

template <class Lane>
absl::Status Directory<Lane>::Check(WorldRank rank, const Request& request) const {
  if (!request.is_collective() && request.slot->buffer.bytes() < channel(request).spec.bytes) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", rank.value(), ": a slot of ", request.slot->buffer.bytes(),
                                                   " bytes is too small for ", Describe(request)));
  }
  for (const WorldRank closed : closed_) {
    if (!TakesPart(request, closed)) continue;
    return absl::UnavailableError(absl::StrCat("rank ", rank.value(), " posts a ", Describe(request), ", but rank ",
                                               closed.value(), " has left"));
  }
  return absl::OkStatus();
}

template <class Lane>
bool Directory<Lane>::TakesPart(const Request& request, WorldRank rank) const {
  if (request.is_collective()) {
    const std::vector<WorldRank>& members = group(request).spec.members;
    return std::find(members.begin(), members.end(), rank) != members.end();
  }
  const ChannelSpec& spec = channel(request).spec;
  return spec.sender == rank || spec.receiver == rank;
}

template <class Lane>
std::string Directory<Lane>::Describe(const Request& request) const {
  switch (request.kind) {
    case Request::Kind::kSend:
      return absl::StrCat("send on ", ToString(channel(request).spec));
    case Request::Kind::kRecv:
      return absl::StrCat("receive on ", ToString(channel(request).spec));
    case Request::Kind::kAllGather:
      return absl::StrCat("gather in ", ToString(group(request).spec));
    case Request::Kind::kAllToAll:
      return absl::StrCat("all-to-all in ", ToString(group(request).spec));
  }
  return "?";
}

template <class Lane>
absl::Status Directory<Lane>::Explain(const Lane& lane, const Request& failed, const absl::Status& status) const {
  for (const auto& [key, other] : lanes_) {
    for (size_t i = 0; i < other->issued; ++i) {
      const Request& candidate = other->ring[i];
      if (!candidate.after->Done() || candidate.after->status().ok()) continue;
      return Annotate(candidate.after->status(),
                      absl::StrCat("rank ", other->rank().value(), ", before ", Describe(candidate)));
    }
  }
  return Annotate(status, absl::StrCat("rank ", lane.rank().value(), ", ", Describe(failed)));
}

template <class Lane>
template <class RequestOf>
absl::Status Directory<Lane>::CheckKinds(const Group& group, RequestOf request_of) const {
  Lane* first = nullptr;
  for (Lane* lane : group.lanes) {
    if (lane == nullptr) continue;
    if (first == nullptr) first = lane;
    const Request &a = request_of(first), &b = request_of(lane);
    if (a.kind == b.kind) continue;
    return absl::InvalidArgumentError(absl::StrCat("the members' operations differ: rank ", first->rank().value(),
                                                   " has posted a ", Describe(a), "; rank ", lane->rank().value(),
                                                   " a ", Describe(b)));
  }
  return absl::OkStatus();
}

template <class Lane>
template <class RequestOf>
void Directory<Lane>::TakeMembers(const Group& group, RequestOf request_of, std::vector<Member>* members) const {
  members->clear();
  for (size_t i = 0; i < group.lanes.size(); ++i) {
    const WorldRank rank = group.spec.members[i];
    members->push_back({.rank = rank, .process = ProcessOf(rank)});
    if (group.lanes[i] == nullptr) continue;
    const Request& request = request_of(group.lanes[i]);
    members->back().mine = request.mine.data;
    members->back().all = request.all.data;
    members->back().mine_bytes = request.mine.bytes();
    members->back().all_bytes = request.all.bytes();
    members->back().parts = request.parts;
  }
}

}  // namespace sluice::internal
