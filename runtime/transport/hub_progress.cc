#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "runtime/transport/hub_state.h"

namespace sluice::internal {

namespace {

// Messages of one tag match in order: each channel has one, and each group.
uint64_t ChannelTag(ChannelId id) { return 2 * static_cast<uint64_t>(id.value()); }
uint64_t GroupTag(GroupId id) { return 2 * static_cast<uint64_t>(id.value()) + 1; }

// From this size on it pays to wake other tasks, and the hub's own has better things to do.
constexpr int64_t kTeamBytes = 1 << 20;

const Operation& HeadOf(Lane* lane) { return *lane->head(); }

}  // namespace

void HubState::Advance(Lane* lane) {
  work_.push_back(lane);
  while (!work_.empty()) {
    Lane* next = work_.back();
    work_.pop_back();
    while (AdvanceHead(next)) {
    }
  }
}

bool HubState::AdvanceHead(Lane* lane) {
  Operation* head = lane->head();
  if (head == nullptr) return false;
  if (!head->is_collective() && directory_.channel(*head).other_process != directory_.self()) {
    return StartTransfers(lane);
  }
  if (!Ready(*lane, *head)) return false;
  if (head->is_collective()) {
    const Group& group = directory_.group(*head);
    wants_task_ |= group.is_local;
    if (!group.is_local && IsReady(head->target)) StartCollective(group);
    return false;
  }
  const Channel& channel = directory_.channel(*head);
  Lane* other = lane == channel.send ? channel.recv : channel.send;
  Operation* partner = other == nullptr ? nullptr : other->head();
  const bool matches = partner != nullptr && !partner->is_collective() && partner->target == head->target;
  if (!matches || !Ready(*other, *partner)) return false;
  Transfer(channel.send, channel.recv);
  work_.push_back(other);
  return true;
}

bool HubState::Ready(const Lane& lane, const Operation& operation) {
  if (!error_.ok() || operation.moving) return false;
  if (!operation.after->Done()) {
    wants_task_ = true;
    const bool is_new = seen_pending_ != nullptr && std::find(seen_pending_->begin(), seen_pending_->end(),
                                                              operation.after) == seen_pending_->end();
    if (is_new) seen_pending_->push_back(operation.after);
    return false;
  }
  if (absl::Status status = operation.after->status(); !status.ok()) {
    Fail(Annotate(status, absl::StrCat("rank ", lane.rank().value(), ", before ", directory_.Describe(operation))));
    return false;
  }
  return true;
}

void HubState::Transfer(Lane* send, Lane* recv) {
  Buffer& sent = send->head()->slot->buffer;
  Buffer& received = recv->head()->slot->buffer;
  if (sent.bytes() != received.bytes()) {
    Fail(absl::InvalidArgumentError(absl::StrCat("slots of ", sent.bytes(), " and ", received.bytes(),
                                                 " bytes can't be exchanged: ", directory_.Describe(*send->head()))));
    return;
  }
  const Nanoseconds began = world_->Now();
  sent.Swap(received);
  const Nanoseconds ended = world_->Now();
  send->Pop(absl::OkStatus(), began, ended);
  recv->Pop(absl::OkStatus(), began, ended);
}

bool HubState::StartTransfers(Lane* lane) {
  if (links_.empty()) return false;
  const size_t target = lane->head()->target;
  const Channel& channel = directory_.channels()[target];
  const ChannelSpec& spec = channel.spec;
  GlooLink* link = links_[channel.other_process].get();
  GlooLane& remote = *remote_lanes_.at(lane);
  for (size_t i = 0; i < lane->size(); ++i) {
    Operation& operation = (*lane)[i];
    if (operation.is_collective() || operation.target != target) return false;
    if (operation.moving) continue;
    if (!Ready(*lane, operation)) return false;
    const bool sends = operation.kind == Operation::Kind::kSend;
    std::byte* data = operation.slot->buffer.data();
    const Nanoseconds now = world_->Now();
    if (i == 0 && sends && remote.SendAtOnce(link, ChannelTag(spec.id), data, spec.bytes)) {
      lane->Pop(absl::OkStatus(), now, world_->Now());
      return true;
    }
    operation.moving = true;
    remote.Start(link, sends ? Direction::kSend : Direction::kReceive, ChannelTag(spec.id), data, spec.bytes);
  }
  return false;
}

bool HubState::IsReady(size_t index) {
  const Group& group = directory_.groups()[index];
  if (!group.is_local && links_.empty()) return false;
  for (size_t i = 0; i < group.lanes.size(); ++i) {
    if (!directory_.IsHere(group.spec.members[i])) continue;
    Lane* lane = group.lanes[i];
    const Operation* head = lane == nullptr ? nullptr : lane->head();
    if (head == nullptr || !head->is_collective() || head->target != index || !Ready(*lane, *head)) return false;
  }
  return true;
}

std::optional<size_t> HubState::ReadyLocalGroup() {
  for (size_t i = 0; i < directory_.groups().size(); ++i) {
    if (directory_.groups()[i].is_local && IsReady(i)) return i;
  }
  return std::nullopt;
}

void HubState::TakeMembers(const Group& group, std::vector<Member>* members) {
  directory_.TakeMembers(group, HeadOf, members);
  for (Lane* lane : group.lanes) {
    if (lane != nullptr) lane->head()->moving = true;
  }
}

void HubState::StartCollective(const Group& group) {
  if (absl::Status status = directory_.CheckKinds(group, HeadOf); !status.ok()) return Fail(status);
  Lane* first = FirstLane(group);
  RemoteCollective collective{.kind = KindOf(*first->head()), .self = directory_.self(), .tag = GroupTag(group.spec.id)};
  TakeMembers(group, &collective.members);
  for (const auto& link : links_) collective.links.push_back(link.get());
  remote_lanes_.at(first)->Start(std::move(collective));
}

void HubState::Exchange(size_t index, std::unique_lock<std::mutex>& lock) {
  const Group& group = directory_.groups()[index];
  auto& [members, plan] = exchanges_[index];
  absl::Status status = directory_.CheckKinds(group, HeadOf);
  const CollectiveKind kind = KindOf(HeadOf(group.lanes[0]));
  TakeMembers(group, &members);
  lock.unlock();
  const Nanoseconds began = world_->Now();
  if (status.ok()) status = CheckSizes(kind, members);
  int64_t bytes = 0;
  if (status.ok()) {
    PlanRest(kind, members, directory_.self(), &plan);
    for (const Copy& copy : plan.copies) bytes += copy.bytes;
  }
  if (bytes >= kTeamBytes) {
    copy_team_->Start(&plan.copies, [&group, this](Nanoseconds copies_began, Nanoseconds copies_ended) {
      Ended(group.lanes, absl::OkStatus(), copies_began, copies_ended);
    });
  } else {
    if (status.ok()) MakeCopies(plan.copies);
    Ended(group.lanes, status, began, world_->Now());
  }
}

// What ended well is told without the lock, or whoever waits would wake only to wait for it.
void HubState::RemoteEnded(Lane* lane, const absl::Status& status, Nanoseconds began, Nanoseconds ended) {
  Ref<Signal> done;
  {
    std::lock_guard lock(mutex_);
    Operation& head = *lane->head();
    if (status.ok() && error_.ok() && !head.is_collective()) {
      done = lane->Take();
      Advance(lane);
    } else {
      End(head.is_collective() ? directory_.group(head).lanes : absl::MakeConstSpan(&lane, 1), status, began, ended);
    }
    RingIfWanted();
  }
  if (done) done->Set(absl::OkStatus(), began, ended);
}

void HubState::Ended(absl::Span<Lane* const> lanes, const absl::Status& status, Nanoseconds began, Nanoseconds ended) {
  std::lock_guard lock(mutex_);
  End(lanes, status, began, ended);
  RingIfWanted();
}

void HubState::End(absl::Span<Lane* const> lanes, const absl::Status& status, Nanoseconds began, Nanoseconds ended) {
  std::string what;
  for (Lane* lane : lanes) {
    if (lane == nullptr) continue;
    lane->head()->moving = false;
    if (!status.ok() && what.empty()) what = directory_.Describe(*lane->head());
    if (status.ok() && error_.ok()) lane->Pop(status, began, ended);
  }
  if (!status.ok()) Fail(absl::IsInvalidArgument(status) ? Annotate(status, what) : status);
  if (!error_.ok()) return CompletePending();
  for (Lane* lane : lanes) {
    if (lane != nullptr) Advance(lane);
  }
}

void HubState::Run() {
  std::vector<EventRef> events;
  for (;;) {
    events.clear();
    events.push_back(bell_.Arm());
    std::unique_lock lock(mutex_);
    if (closing_) return;
    events.reserve(1 + 2 * directory_.lanes().size());
    seen_pending_ = &events;
    for (const auto& [key, lane] : directory_.lanes()) Advance(lane.get());
    const std::optional<size_t> group = ReadyLocalGroup();
    seen_pending_ = nullptr;
    if (group.has_value()) {
      Exchange(*group, lock);
      continue;
    }
    wants_task_ = false;
    lock.unlock();
    world_->WaitAny(events, kForever);
  }
}

}  // namespace sluice::internal
