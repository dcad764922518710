#include "runtime/transport/hub_state.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "runtime/transport/specs.h"

namespace sluice::internal {

namespace {

constexpr int64_t kCopyTasksMax = 8;

}  // namespace

HubState::HubState(World* world, std::vector<int> process_of, int self)
    : world_(world), process_of_(std::move(process_of)), self_(self) {
  const auto here = std::count(process_of_.begin(), process_of_.end(), self);
  copy_team_ = std::make_unique<CopyTeam>(world, static_cast<int>(std::clamp<int64_t>(here, 1, kCopyTasksMax)));
  for (const int process : process_of_) {
    presence_.push_back(process == self ? Presence::kUnopened : Presence::kElsewhere);
  }
  work_.reserve(256);
  task_ = world->Spawn({.name = "transport"}, [this] { Run(); });
}

HubState::~HubState() {
  {
    std::lock_guard lock(mutex_);
    for (size_t rank = 0; rank < presence_.size(); ++rank) {
      CHECK(presence_[rank] != Presence::kOpen) << "the endpoint of rank " << rank << " outlives its hub";
    }
    closing_ = true;
    for (const auto& link : links_) {
      if (link != nullptr) link->Say(absl::OkStatus());
    }
  }
  bell_.Ring(world_->Now());
  CHECK_OK(world_->Wait(task_));
  copy_team_.reset();
  remote_lanes_.clear();
  for (const auto& link : links_) {
    if (link != nullptr) link->Close();  // all ears, before the first link goes: what one hears is told to all
  }
  links_.clear();
}

Lane* HubState::LaneOf(WorldRank rank, QueueId queue) {
  std::unique_ptr<Lane>& lane = lanes_[{rank, queue}];
  if (lane == nullptr) lane = std::make_unique<Lane>(rank, queue);
  return lane.get();
}

absl::Status HubState::Open(WorldRank rank, const std::vector<ChannelSpec>& channels,
                            const std::vector<GroupSpec>& groups) {
  std::lock_guard lock(mutex_);
  RETURN_IF_ERROR(error_);
  if (!rank.valid() || rank.index() >= presence_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank ", rank.value(), " opens an endpoint, but there are ranks 0 to ", presence_.size() - 1));
  }
  if (!IsHere(rank)) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", rank.value(), " belongs to process ",
                                                   process_of_[rank.index()], ", this is process ", self_));
  }
  if (presence_[rank.index()] != Presence::kUnopened) {
    return absl::AlreadyExistsError(absl::StrCat("rank ", rank.value(), " has opened its endpoint already"));
  }
  presence_[rank.index()] = Presence::kOpen;
  absl::Status status;
  for (const ChannelSpec& spec : channels) status.Update(OpenChannel(rank, spec));
  for (const GroupSpec& spec : groups) status.Update(OpenGroup(rank, spec));
  if (status.ok()) status = CheckOtherEnds(rank);
  if (!status.ok()) {
    presence_[rank.index()] = Presence::kClosed;
    closed_.push_back(rank);
    Fail(status);
  }
  return status;
}

absl::Status HubState::OpenChannel(WorldRank rank, const ChannelSpec& spec) {
  const bool sends = spec.sender == rank;
  const WorldRank other = sends ? spec.receiver : spec.sender;
  if ((!sends && spec.receiver != rank) || other == rank || other.index() >= presence_.size() || spec.bytes <= 0) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", rank.value(), " can't open ", ToString(spec),
                                                   ": it must join this rank to another one and carry bytes"));
  }
  const auto [found, fresh] = channel_index_.try_emplace(spec.id, channels_.size());
  if (fresh) channels_.push_back({.spec = spec, .other_process = process_of_[other.index()]});
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

absl::Status HubState::OpenGroup(WorldRank rank, const GroupSpec& spec) {
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
absl::Status HubState::CheckOtherEnds(WorldRank rank) const {
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

// A rank that leaves while anybody counts on it ends all; the memory of its own operations is not touched afterwards.
void HubState::Close(WorldRank rank) {
  std::vector<EventRef> moving;
  {
    std::lock_guard lock(mutex_);
    presence_[rank.index()] = Presence::kClosed;
    closed_.push_back(rank);
    for (auto& [key, lane] : lanes_) {
      for (size_t i = 0; i < lane->size(); ++i) {
        const Operation& operation = (*lane)[i];
        if (operation.moving && TakesPart(operation, rank)) moving.push_back(operation.done);
      }
    }
    Leave(rank);
  }
  for (const EventRef& event : moving) world_->Wait(event).IgnoreError();
}

void HubState::Leave(WorldRank rank) {
  for (auto& [key, lane] : lanes_) {
    for (size_t i = 0; i < lane->size(); ++i) {
      const Operation& operation = (*lane)[i];
      // What is moving with a rank of another process may have moved already.
      if (!TakesPart(operation, rank) || (operation.moving && !IsHere(rank))) continue;
      return Fail(absl::UnavailableError(absl::StrCat("rank ", rank.value(), " has left while rank ",
                                                      lane->rank().value(), " waited in ", Describe(operation))));
    }
  }
}

void HubState::HearLastWords(int process, const absl::Status& words) {
  std::lock_guard lock(mutex_);
  if (!words.ok()) return Fail(words);
  for (size_t rank = 0; rank < process_of_.size(); ++rank) {
    if (process_of_[rank] != process) continue;
    presence_[rank] = Presence::kClosed;
    closed_.push_back(WorldRank(rank));
    Leave(WorldRank(rank));
  }
  links_[process]->Interrupt();
}

bool HubState::TakesPart(const Operation& operation, WorldRank rank) const {
  if (operation.is_collective()) {
    const std::vector<WorldRank>& members = groups_[operation.target].spec.members;
    return std::find(members.begin(), members.end(), rank) != members.end();
  }
  const ChannelSpec& spec = channels_[operation.target].spec;
  return spec.sender == rank || spec.receiver == rank;
}

std::string HubState::Describe(const Operation& operation) const {
  switch (operation.kind) {
    case Operation::Kind::kSend:
      return absl::StrCat("send on ", ToString(channels_[operation.target].spec));
    case Operation::Kind::kRecv:
      return absl::StrCat("receive on ", ToString(channels_[operation.target].spec));
    case Operation::Kind::kAllGather:
      return absl::StrCat("gather in ", ToString(groups_[operation.target].spec));
    case Operation::Kind::kAllToAll:
      return absl::StrCat("all-to-all in ", ToString(groups_[operation.target].spec));
  }
  return "?";
}

EventRef HubState::PostTransfer(WorldRank rank, ChannelId id, Operation operation) {
  CHECK(operation.slot != nullptr) << "a transfer needs a slot";
  std::lock_guard lock(mutex_);
  const auto found = channel_index_.find(id);
  CHECK(found != channel_index_.end()) << "rank " << rank << " has not opened channel " << id;
  const Channel& channel = channels_[found->second];
  Lane* lane = operation.kind == Operation::Kind::kSend ? channel.send : channel.recv;
  CHECK(lane != nullptr && lane->rank() == rank)
      << "rank " << rank << " uses the wrong end of " << ToString(channel.spec);
  operation.target = found->second;
  if (operation.slot->buffer.bytes() < channel.spec.bytes) {
    Fail(absl::InvalidArgumentError(absl::StrCat("rank ", rank.value(), ": a slot of ", operation.slot->buffer.bytes(),
                                                 " bytes is too small for ", Describe(operation))));
  }
  return Post(lane, std::move(operation));
}

EventRef HubState::PostCollective(WorldRank rank, GroupId id, Operation operation) {
  std::lock_guard lock(mutex_);
  const auto found = group_index_.find(id);
  CHECK(found != group_index_.end()) << "rank " << rank << " has not opened group " << id;
  const Group& group = groups_[found->second];
  const auto place = std::find(group.spec.members.begin(), group.spec.members.end(), rank);
  CHECK(place != group.spec.members.end()) << "rank " << rank << " is no member of " << ToString(group.spec);
  operation.target = found->second;
  return Post(group.lanes[place - group.spec.members.begin()], std::move(operation));
}

EventRef HubState::Post(Lane* lane, Operation operation) {
  operation.done = signals_->Take();
  if (!operation.after) operation.after = DoneEvent();
  const EventRef done = operation.done;
  for (const WorldRank rank : closed_) {
    if (TakesPart(operation, rank)) {
      Fail(absl::UnavailableError(absl::StrCat("rank ", lane->rank().value(), " posts a ", Describe(operation),
                                               ", but rank ", rank.value(), " has left")));
    }
  }
  if (!error_.ok()) {
    operation.done->Set(error_, world_->Now());
    return done;
  }
  lane->Push(std::move(operation));
  if (lane->size() == 1 || lane->head()->moving) Advance(lane);
  RingIfWanted();
  return done;
}

void HubState::RingIfWanted() {
  if (std::exchange(wants_task_, false)) bell_.Ring(world_->Now());
}

void HubState::Abort(absl::Status cause) {
  std::lock_guard lock(mutex_);
  Fail(std::move(cause));
}

void HubState::Fail(absl::Status cause) {
  CHECK(!cause.ok()) << "an abort needs a cause";
  if (!error_.ok()) return;
  error_ = std::move(cause);
  TellOthers();
  CompletePending();
}

void HubState::TellOthers() {
  for (const auto& link : links_) {
    if (link == nullptr) continue;
    link->Say(error_);
    link->Interrupt();
  }
}

void HubState::CompletePending() {
  const Nanoseconds now = world_->Now();
  for (auto& [key, lane] : lanes_) {
    while (lane->size() > 0 && !lane->head()->moving) lane->Pop(error_, now, now);
  }
}

int64_t HubState::bytes_moved() const {
  std::lock_guard lock(mutex_);
  int64_t bytes = 0;
  for (const auto& link : links_) bytes += link == nullptr ? 0 : link->bytes_moved();
  return bytes;
}

void HubState::RemoteSpecs(std::vector<ChannelSpec>* channels, std::vector<GroupSpec>* groups) const {
  std::lock_guard lock(mutex_);
  for (const Channel& channel : channels_) {
    if (channel.other_process != self_) channels->push_back(channel.spec);
  }
  for (const Group& group : groups_) {
    if (!group.is_local) groups->push_back(group.spec);
  }
}

// A lane needs a thread of its own once it leads to another process; a collective runs on the lane of its first member
// here.
std::vector<Lane*> HubState::RemoteLanes() const {
  std::vector<Lane*> lanes;
  for (const Channel& channel : channels_) {
    if (channel.other_process != self_) lanes.push_back(channel.send != nullptr ? channel.send : channel.recv);
  }
  for (const Group& group : groups_) {
    if (!group.is_local) lanes.push_back(FirstLane(group));
  }
  return lanes;
}

Lane* HubState::FirstLane(const Group& group) {
  return *std::find_if(group.lanes.begin(), group.lanes.end(), [](const Lane* lane) { return lane != nullptr; });
}

void HubState::Connect(std::vector<std::unique_ptr<GlooLink>> links) {
  std::lock_guard lock(mutex_);
  links_ = std::move(links);
  for (Lane* lane : RemoteLanes()) {
    std::unique_ptr<GlooLane>& remote = remote_lanes_[lane];
    if (remote != nullptr) continue;
    remote =
        std::make_unique<GlooLane>(world_, absl::StrCat("gloo r", lane->rank().value(), " q", lane->queue().value()),
                                   [this, lane](const absl::Status& status, Nanoseconds began, Nanoseconds ended) {
                                     RemoteEnded(lane, status, began, ended);
                                   });
  }
  for (size_t process = 0; process < links_.size(); ++process) {
    if (links_[process] == nullptr) continue;
    links_[process]->Watch([this, process](const absl::Status& words) { HearLastWords(process, words); });
  }
  if (!error_.ok()) return TellOthers();
  for (auto& [key, lane] : lanes_) Advance(lane.get());
  RingIfWanted();
}

}  // namespace sluice::internal
