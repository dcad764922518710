#include "runtime/transport/in_process.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/signal_pool.h"
#include "base/status.h"
#include "runtime/transport/collective.h"
#include "runtime/transport/lane.h"

namespace sluice {

using internal::Copy;
using internal::Lane;
using internal::Member;
using internal::Operation;

std::string ToString(const ChannelSpec& spec) {
  return absl::StrCat("channel ", spec.id.value(), ", queue ", spec.queue.value(), ", rank ", spec.sender.value(),
                      " to rank ", spec.receiver.value(), ", ", spec.bytes, " bytes: ", spec.message);
}

std::string ToString(const GroupSpec& spec) {
  const std::string members =
      absl::StrJoin(spec.members, ", ", [](std::string* out, WorldRank rank) { absl::StrAppend(out, rank.value()); });
  return absl::StrCat("group ", spec.id.value(), ", queue ", spec.queue.value(), ", ranks ", members, ": ",
                      spec.purpose);
}

class InProcessHub::State {
 public:
  State(World* world, int ranks);
  ~State();

  absl::Status Open(WorldRank rank, const std::vector<ChannelSpec>& channels, const std::vector<GroupSpec>& groups);
  void Close(WorldRank rank);
  EventRef PostTransfer(WorldRank rank, ChannelId channel, Operation operation);
  EventRef PostCollective(WorldRank rank, GroupId group, Operation operation);
  void Abort(absl::Status cause);

 private:
  enum class Presence : uint8_t { kUnopened, kOpen, kClosed };
  struct Channel {
    ChannelSpec spec;
    Lane* send = nullptr;  // once its end has opened it
    Lane* recv = nullptr;
  };
  struct Group {
    GroupSpec spec;
    std::vector<Lane*> lanes;  // per member, once it has opened the group
  };

  absl::Status OpenChannel(WorldRank rank, const ChannelSpec& spec);
  absl::Status OpenGroup(WorldRank rank, const GroupSpec& spec);
  absl::Status CheckOtherEnds(WorldRank rank) const;
  Lane* LaneOf(WorldRank rank, QueueId queue);
  std::string Describe(const Operation& operation) const;
  bool TakesPart(const Operation& operation, WorldRank rank) const;

  EventRef Post(Lane* lane, Operation operation);
  // Makes all transfers that are possible, starting from the head of `lane`.
  void Advance(Lane* lane);
  bool AdvanceHead(Lane* lane);
  // Whether the operation's turn has come as far as its own rank is concerned. An error of what it waits for ends all.
  bool Ready(const Lane& lane, const Operation& operation);
  void Transfer(Lane* send, Lane* recv);
  // The group at the head of all its members' lanes, if there is one.
  Group* ReadyCollective();
  // What is to be copied for the group, whose members' operations are in exchanging_.
  absl::Status Plan(const Group& group);
  // Copies without the lock. Ends the operations of the group afterwards.
  void Exchange(Group* group, std::unique_lock<std::mutex>& lock);
  // The first cause wins and completes what is pending; what is moving is completed when its memory is no longer
  // touched.
  void Fail(absl::Status cause);
  void CompletePending();
  void Run();

  World* const world_;
  const Ref<SignalPool> signals_ = MakeRef<SignalPool>();
  Doorbell bell_{signals_};

  std::mutex mutex_;
  absl::Status error_;
  bool closing_ = false;
  bool wants_task_ = false;  // some head waits for an event, or a collective may be ready
  // What heads were seen to wait for while the task looked at all lanes; null at other times. Asking them again
  // afterwards would miss an event that was done in between.
  std::vector<EventRef>* seen_pending_ = nullptr;
  std::vector<Presence> presence_;
  std::map<std::pair<WorldRank, QueueId>, std::unique_ptr<Lane>> lanes_;
  std::vector<Channel> channels_;
  std::vector<Group> groups_;
  std::map<ChannelId, size_t> channel_index_;
  std::map<GroupId, size_t> group_index_;
  std::vector<Lane*> work_;         // of Advance()
  std::vector<Member> exchanging_;  // of Exchange(), the task's
  std::vector<Copy> copies_;
  EventRef task_;
};

InProcessHub::State::State(World* world, int ranks) : world_(world), presence_(ranks) {
  work_.reserve(256);
  task_ = world->Spawn({.name = "transport"}, [this] { Run(); });
}

InProcessHub::State::~State() {
  {
    std::lock_guard lock(mutex_);
    for (size_t rank = 0; rank < presence_.size(); ++rank) {
      CHECK(presence_[rank] != Presence::kOpen) << "the endpoint of rank " << rank << " outlives its hub";
    }
    closing_ = true;
  }
  bell_.Ring(world_->Now());
  CHECK_OK(world_->Wait(task_));
}

Lane* InProcessHub::State::LaneOf(WorldRank rank, QueueId queue) {
  std::unique_ptr<Lane>& lane = lanes_[{rank, queue}];
  if (lane == nullptr) lane = std::make_unique<Lane>(rank, queue);
  return lane.get();
}

absl::Status InProcessHub::State::Open(WorldRank rank, const std::vector<ChannelSpec>& channels,
                                       const std::vector<GroupSpec>& groups) {
  std::lock_guard lock(mutex_);
  RETURN_IF_ERROR(error_);
  if (!rank.valid() || rank.index() >= presence_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank ", rank.value(), " opens an endpoint, but there are ranks 0 to ", presence_.size() - 1));
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
    Fail(status);
  }
  return status;
}

absl::Status InProcessHub::State::OpenChannel(WorldRank rank, const ChannelSpec& spec) {
  const bool sends = spec.sender == rank;
  const WorldRank other = sends ? spec.receiver : spec.sender;
  if ((!sends && spec.receiver != rank) || other == rank || other.index() >= presence_.size() || spec.bytes <= 0) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", rank.value(), " can't open ", ToString(spec),
                                                   ": it must join this rank to another one and carry bytes"));
  }
  const auto [found, fresh] = channel_index_.try_emplace(spec.id, channels_.size());
  if (fresh) channels_.push_back({.spec = spec});
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

absl::Status InProcessHub::State::OpenGroup(WorldRank rank, const GroupSpec& spec) {
  const auto place = std::find(spec.members.begin(), spec.members.end(), rank);
  const bool known = std::all_of(spec.members.begin(), spec.members.end(),
                                 [&](WorldRank member) { return member.valid() && member.index() < presence_.size(); });
  if (place == spec.members.end() || !known || std::count(spec.members.begin(), spec.members.end(), rank) != 1) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", rank.value(), " can't open ", ToString(spec),
                                                   ": it must name this rank once, and no unknown rank"));
  }
  const auto [found, fresh] = group_index_.try_emplace(spec.id, groups_.size());
  if (fresh) groups_.push_back({.spec = spec, .lanes = std::vector<Lane*>(spec.members.size())});
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
absl::Status InProcessHub::State::CheckOtherEnds(WorldRank rank) const {
  const auto missing = [&](WorldRank at, const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", at.value(), " has no ", what));
  };
  for (const Channel& channel : channels_) {
    const ChannelSpec& spec = channel.spec;
    if (spec.sender != rank && spec.receiver != rank) continue;
    for (const auto& [end, lane] : {std::pair(spec.sender, channel.send), std::pair(spec.receiver, channel.recv)}) {
      if (lane == nullptr && presence_[end.index()] != Presence::kUnopened) return missing(end, ToString(spec));
    }
  }
  for (const Group& group : groups_) {
    for (size_t i = 0; i < group.lanes.size(); ++i) {
      const WorldRank member = group.spec.members[i];
      if (group.lanes[i] == nullptr && presence_[member.index()] != Presence::kUnopened)
        return missing(member, ToString(group.spec));
    }
  }
  return absl::OkStatus();
}

// A rank that leaves while anybody counts on it ends all; the memory of its own operations is not touched afterwards.
void InProcessHub::State::Close(WorldRank rank) {
  std::vector<EventRef> moving;
  {
    std::lock_guard lock(mutex_);
    presence_[rank.index()] = Presence::kClosed;
    for (auto& [key, lane] : lanes_) {
      for (size_t i = 0; i < lane->size(); ++i) {
        Operation& operation = (*lane)[i];
        if (!TakesPart(operation, rank)) continue;
        if (operation.moving) moving.push_back(operation.done);
        Fail(absl::UnavailableError(absl::StrCat("rank ", rank.value(), " has left while rank ", lane->rank().value(),
                                                 " waited in ", Describe(operation))));
      }
    }
  }
  for (const EventRef& event : moving) world_->Wait(event).IgnoreError();
}

bool InProcessHub::State::TakesPart(const Operation& operation, WorldRank rank) const {
  if (operation.is_collective()) {
    const std::vector<WorldRank>& members = groups_[operation.target].spec.members;
    return std::find(members.begin(), members.end(), rank) != members.end();
  }
  const ChannelSpec& spec = channels_[operation.target].spec;
  return spec.sender == rank || spec.receiver == rank;
}

std::string InProcessHub::State::Describe(const Operation& operation) const {
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

EventRef InProcessHub::State::PostTransfer(WorldRank rank, ChannelId id, Operation operation) {
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

EventRef InProcessHub::State::PostCollective(WorldRank rank, GroupId id, Operation operation) {
  std::lock_guard lock(mutex_);
  const auto found = group_index_.find(id);
  CHECK(found != group_index_.end()) << "rank " << rank << " has not opened group " << id;
  const Group& group = groups_[found->second];
  const auto place = std::find(group.spec.members.begin(), group.spec.members.end(), rank);
  CHECK(place != group.spec.members.end()) << "rank " << rank << " is no member of " << ToString(group.spec);
  operation.target = found->second;
  return Post(group.lanes[place - group.spec.members.begin()], std::move(operation));
}

EventRef InProcessHub::State::Post(Lane* lane, Operation operation) {
  operation.done = signals_->Take();
  if (!operation.after) operation.after = DoneEvent();
  const EventRef done = operation.done;
  for (size_t rank = 0; rank < presence_.size(); ++rank) {
    if (presence_[rank] == Presence::kClosed && TakesPart(operation, WorldRank(rank))) {
      Fail(absl::UnavailableError(absl::StrCat("rank ", lane->rank().value(), " posts a ", Describe(operation),
                                               ", but rank ", rank, " has left")));
    }
  }
  if (!error_.ok()) {
    operation.done->Set(error_, world_->Now());
    return done;
  }
  lane->Push(std::move(operation));
  if (lane->size() == 1) Advance(lane);
  if (wants_task_) {
    wants_task_ = false;
    bell_.Ring(world_->Now());
  }
  return done;
}

void InProcessHub::State::Advance(Lane* lane) {
  work_.push_back(lane);
  while (!work_.empty()) {
    Lane* next = work_.back();
    work_.pop_back();
    while (AdvanceHead(next)) {
    }
  }
}

bool InProcessHub::State::AdvanceHead(Lane* lane) {
  Operation* head = lane->head();
  if (head == nullptr || !Ready(*lane, *head)) return false;
  if (head->is_collective()) {
    wants_task_ = true;
    return false;
  }
  const Channel& channel = channels_[head->target];
  Lane* other = lane == channel.send ? channel.recv : channel.send;
  Operation* partner = other == nullptr ? nullptr : other->head();
  const bool matches = partner != nullptr && !partner->is_collective() && partner->target == head->target;
  if (!matches || !Ready(*other, *partner)) return false;
  Transfer(channel.send, channel.recv);
  work_.push_back(other);
  return true;
}

bool InProcessHub::State::Ready(const Lane& lane, const Operation& operation) {
  if (!error_.ok() || operation.moving) return false;
  if (!operation.after->Done()) {
    wants_task_ = true;
    const bool is_new = seen_pending_ != nullptr && std::find(seen_pending_->begin(), seen_pending_->end(),
                                                              operation.after) == seen_pending_->end();
    if (is_new) seen_pending_->push_back(operation.after);
    return false;
  }
  if (absl::Status status = operation.after->status(); !status.ok()) {
    Fail(Annotate(status, absl::StrCat("rank ", lane.rank().value(), ", before ", Describe(operation))));
    return false;
  }
  return true;
}

void InProcessHub::State::Transfer(Lane* send, Lane* recv) {
  Buffer& sent = send->head()->slot->buffer;
  Buffer& received = recv->head()->slot->buffer;
  if (sent.bytes() != received.bytes()) {
    Fail(absl::InvalidArgumentError(absl::StrCat("slots of ", sent.bytes(), " and ", received.bytes(),
                                                 " bytes can't be exchanged: ", Describe(*send->head()))));
    return;
  }
  const Nanoseconds began = world_->Now();
  sent.Swap(received);
  const Nanoseconds ended = world_->Now();
  send->Pop(absl::OkStatus(), began, ended);
  recv->Pop(absl::OkStatus(), began, ended);
}

InProcessHub::State::Group* InProcessHub::State::ReadyCollective() {
  for (size_t i = 0; i < groups_.size(); ++i) {
    const bool ready = std::all_of(groups_[i].lanes.begin(), groups_[i].lanes.end(), [&](Lane* lane) {
      Operation* head = lane == nullptr ? nullptr : lane->head();
      return head != nullptr && head->is_collective() && head->target == i && Ready(*lane, *head);
    });
    if (ready) return &groups_[i];
  }
  return nullptr;
}

absl::Status InProcessHub::State::Plan(const Group& group) {
  copies_.clear();
  const Operation& first = *group.lanes[0]->head();
  for (Lane* lane : group.lanes) {
    if (lane->head()->kind == first.kind) continue;
    return absl::InvalidArgumentError(absl::StrCat("the members' operations differ: rank ",
                                                   group.lanes[0]->rank().value(), " has posted a ", Describe(first),
                                                   "; rank ", lane->rank().value(), " a ", Describe(*lane->head())));
  }
  const absl::Status status = first.kind == Operation::Kind::kAllGather ? PlanAllGather(exchanging_, &copies_)
                                                                        : PlanAllToAll(exchanging_, &copies_);
  return status.ok() ? status : Annotate(status, Describe(first));
}

void InProcessHub::State::Exchange(Group* group, std::unique_lock<std::mutex>& lock) {
  exchanging_.clear();
  for (Lane* lane : group->lanes) {
    Operation& head = *lane->head();
    head.moving = true;
    exchanging_.push_back({.rank = lane->rank(), .mine = head.mine, .all = head.all, .parts = head.parts});
  }
  absl::Status status = Plan(*group);
  lock.unlock();
  const Nanoseconds began = world_->Now();
  if (status.ok()) {
    for (const Copy& copy : copies_) std::memcpy(copy.to, copy.from, copy.bytes);
  }
  const Nanoseconds ended = world_->Now();
  lock.lock();
  for (Lane* lane : group->lanes) {
    lane->head()->moving = false;
    if (status.ok() && error_.ok()) lane->Pop(status, began, ended);
  }
  if (!status.ok()) Fail(status);
  if (!error_.ok()) CompletePending();
}

void InProcessHub::State::Abort(absl::Status cause) {
  std::lock_guard lock(mutex_);
  Fail(std::move(cause));
}

void InProcessHub::State::Fail(absl::Status cause) {
  CHECK(!cause.ok()) << "an abort needs a cause";
  if (!error_.ok()) return;
  error_ = std::move(cause);
  CompletePending();
}

void InProcessHub::State::CompletePending() {
  const Nanoseconds now = world_->Now();
  for (auto& [key, lane] : lanes_) {
    if (lane->size() > 0 && lane->head()->moving) continue;
    while (lane->size() > 0) lane->Pop(error_, now, now);
  }
}

void InProcessHub::State::Run() {
  std::vector<EventRef> events;
  for (;;) {
    events.clear();
    events.push_back(bell_.Arm());
    std::unique_lock lock(mutex_);
    if (closing_) return;
    events.reserve(1 + 2 * lanes_.size());
    seen_pending_ = &events;
    for (auto& [key, lane] : lanes_) Advance(lane.get());
    Group* group = ReadyCollective();
    seen_pending_ = nullptr;
    if (group != nullptr) {
      Exchange(group, lock);
      continue;
    }
    wants_task_ = false;
    lock.unlock();
    world_->WaitAny(events, kForever);
  }
}

class InProcessEndpoint final : public Transport {
 public:
  InProcessEndpoint(InProcessHub::State* hub, WorldRank rank) : hub_(hub), rank_(rank) {}
  ~InProcessEndpoint() override { hub_->Close(rank_); }

  WorldRank rank() const override { return rank_; }
  bool slots_move() const override { return true; }
  EventRef Send(ChannelId channel, Slot* slot, const EventRef& after) override {
    return hub_->PostTransfer(rank_, channel, {.kind = Operation::Kind::kSend, .slot = slot, .after = after});
  }
  EventRef Recv(ChannelId channel, Slot* slot, const EventRef& slot_free) override {
    return hub_->PostTransfer(rank_, channel, {.kind = Operation::Kind::kRecv, .slot = slot, .after = slot_free});
  }
  EventRef AllGather(GroupId group, TensorView mine, TensorView all, const EventRef& after) override {
    return hub_->PostCollective(rank_, group,
                                {.kind = Operation::Kind::kAllGather, .mine = mine, .all = all, .after = after});
  }
  EventRef AllToAll(GroupId group, TensorView mine, absl::Span<const int64_t> parts, TensorView all,
                    const EventRef& after) override {
    return hub_->PostCollective(
        rank_, group, {.kind = Operation::Kind::kAllToAll, .mine = mine, .all = all, .parts = parts, .after = after});
  }
  void Abort(absl::Status cause) override { hub_->Abort(std::move(cause)); }

 private:
  InProcessHub::State* const hub_;
  const WorldRank rank_;
};

InProcessHub::InProcessHub(World* world, int ranks) : state_(std::make_unique<State>(world, ranks)) {}
InProcessHub::~InProcessHub() = default;

absl::StatusOr<std::unique_ptr<Transport>> InProcessHub::Open(WorldRank rank, const std::vector<ChannelSpec>& channels,
                                                              const std::vector<GroupSpec>& groups) {
  RETURN_IF_ERROR(state_->Open(rank, channels, groups));
  return std::make_unique<InProcessEndpoint>(state_.get(), rank);
}

}  // namespace sluice
