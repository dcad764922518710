#include "runtime/transport/peer_state.h"

#include <algorithm>

#include "base/check.h"
#include "base/status.h"

namespace sluice::internal {
namespace {

// Commands of a lane in its stream, at most, so that issuing one never waits. One operation may have more.
constexpr int kCommandsMax = 256;
constexpr int kCommandsOfTransfer = 6;
// Some events call nobody when they are done: the task looks at them this often.
constexpr Nanoseconds kTick = kMillisecond;

bool HasRoom(const PeerLane& lane, int commands) {
  return lane.issued == 0 || lane.commands + commands <= kCommandsMax;
}

void After(Stream* stream, const EventRef& event) {
  if (!event->Done() || !event->status().ok()) stream->Wait(event);
}

// What was issued in the lane before has ended.
void AfterLast(Stream* stream, const PeerLane& lane) {
  if (lane.last && lane.last_on != stream) After(stream, lane.last);
}

TensorView AsWords(const std::byte* data, int64_t bytes) {
  const DType type = bytes % 4 == 0 ? DType::kI32 : DType::kBF16;
  return {const_cast<std::byte*>(data), type, {bytes / SizeOf(type)}};
}

const Request& WaitingOf(PeerLane* lane) { return *lane->waiting(); }

}  // namespace

PeerState::PeerState(World* world, int ranks) : world_(world), directory_(std::vector<int>(ranks, 0), 0) {
  work_.reserve(256);
  task_ = world->Spawn({.name = "peer hub"}, [this] { Run(); });
}

PeerState::~PeerState() {
  {
    std::lock_guard lock(mutex_);
    directory_.CheckNoneIsOpen();
    closing_ = true;
  }
  bell_.Ring(world_->Now());
  CHECK_OK(world_->Wait(task_));
}

absl::Status PeerState::Open(WorldRank rank, Device* device, const std::vector<ChannelSpec>& channels,
                             const std::vector<GroupSpec>& groups) {
  std::vector<PeerLane*> mine;
  {
    std::lock_guard lock(mutex_);
    RETURN_IF_ERROR(error_);
    RETURN_IF_ERROR(directory_.CheckMayOpen(rank));
    if (absl::Status status = directory_.Open(rank, channels, groups); !status.ok()) {
      Fail(status);
      return status;
    }
    for (const auto& [key, lane] : directory_.lanes()) {
      if (lane->rank() == rank) mine.push_back(lane.get());
    }
  }
  // Nothing is issued to these before the rank has posted something.
  for (PeerLane* lane : mine) {
    auto stream = device->NewStream(absl::StrCat("r", rank.value(), " queue ", lane->queue().value()));
    std::lock_guard lock(mutex_);
    lane->operations = &device->operations();
    lane->stream = std::move(stream);
  }
  return absl::OkStatus();
}

// A rank that leaves while anybody counts on it ends all; its memory is not touched afterwards.
void PeerState::Close(WorldRank rank) {
  std::vector<EventRef> copies;
  std::vector<std::unique_ptr<Stream>> streams;
  {
    std::lock_guard lock(mutex_);
    directory_.MarkClosed(rank);
    for (const auto& [key, lane] : directory_.lanes()) Retire(lane.get());
    for (const auto& [key, lane] : directory_.lanes()) {
      for (size_t i = 0; i < lane->ring.size(); ++i) {
        const PeerOperation& operation = lane->ring[i];
        if (!directory_.TakesPart(operation, rank)) continue;
        if (operation.copied) copies.push_back(operation.copied);
        if (!error_.ok()) continue;
        Fail(absl::UnavailableError(absl::StrCat("rank ", rank.value(), " has left while rank ", lane->rank().value(),
                                                 " waited in ", directory_.Describe(operation))));
      }
      if (lane->rank() == rank && lane->stream != nullptr) streams.push_back(std::move(lane->stream));
    }
  }
  for (const EventRef& copied : copies) world_->WaitAny({&copied, 1}, kForever);
}

EventRef PeerState::PostTransfer(WorldRank rank, ChannelId id, Request request) {
  std::lock_guard lock(mutex_);
  PeerLane* lane = directory_.Aim(rank, id, &request);
  return Post(lane, std::move(request));
}

EventRef PeerState::PostCollective(WorldRank rank, GroupId id, Request request) {
  std::lock_guard lock(mutex_);
  PeerLane* lane = directory_.Aim(rank, id, &request);
  return Post(lane, std::move(request));
}

EventRef PeerState::Post(PeerLane* lane, Request request) {
  PeerOperation operation{std::move(request)};
  operation.done = relays_->Take();
  if (!operation.after) operation.after = DoneEvent();
  const EventRef done = operation.done;
  Retire(lane);
  if (absl::Status status = directory_.Check(lane->rank(), operation); !status.ok()) Fail(status);
  if (!error_.ok()) {
    operation.done->Fail(error_, world_->Now());
    return done;
  }
  lane->ring.Push(std::move(operation));
  Advance(lane);
  return done;
}

void PeerState::Advance(PeerLane* lane) {
  work_.push_back(lane);
  while (!work_.empty()) {
    PeerLane* next = work_.back();
    work_.pop_back();
    while (AdvanceOnce(next)) {
    }
  }
}

bool PeerState::AdvanceOnce(PeerLane* lane) {
  const PeerOperation* waiting = lane->waiting();
  if (waiting == nullptr || !error_.ok()) return false;
  return waiting->is_collective() ? IssueCollective(directory_.group(*waiting))
                                  : IssueTransfer(directory_.channel(*waiting));
}

bool PeerState::IssueTransfer(const Channel& channel) {
  PeerLane *from = channel.send, *to = channel.recv;
  if (from == nullptr || to == nullptr || !HasRoom(*to, kCommandsOfTransfer)) return false;
  PeerOperation *sent = from->waiting(), *received = to->waiting();
  const auto is_its = [&](const PeerOperation* operation) {
    return operation != nullptr && !operation->is_collective() && &directory_.channel(*operation) == &channel;
  };
  if (!is_its(sent) || !is_its(received)) return false;
  Stream* const stream = to->stream.get();
  AfterLast(stream, *from);
  AfterLast(stream, *to);
  After(stream, sent->after);
  After(stream, received->after);
  const int64_t bytes = channel.spec.bytes;
  to->operations->Copy(*stream, AsWords(sent->slot->buffer.data(), bytes),
                       AsWords(received->slot->buffer.data(), bytes));
  const EventRef copied = stream->Record();
  MarkIssued(from, copied, stream, 0);
  MarkIssued(to, copied, stream, kCommandsOfTransfer);
  return true;
}

bool PeerState::IssueCollective(const Group& group) {
  const int commands = 4 * static_cast<int>(group.lanes.size()) + 2;
  for (PeerLane* lane : group.lanes) {
    if (lane == nullptr || !HasRoom(*lane, commands)) return false;
    const PeerOperation* waiting = lane->waiting();
    if (waiting == nullptr || !waiting->is_collective() || &directory_.group(*waiting) != &group) return false;
  }
  const Request& first = WaitingOf(group.lanes[0]);
  absl::Status status = directory_.CheckKinds(group, WaitingOf);
  directory_.TakeMembers(group, WaitingOf, &members_);
  if (status.ok()) status = CheckSizes(KindOf(first), members_);
  if (!status.ok()) {
    Fail(Annotate(status, directory_.Describe(first)));
    return false;
  }
  PlanRest(KindOf(first), members_, 0, &plan_);
  IssueCopies(group);
  return true;
}

// The first member's stream brings all together before and after; each one's own makes the copies to its device.
void PeerState::IssueCopies(const Group& group) {
  Stream* const first = group.lanes[0]->stream.get();
  for (PeerLane* lane : group.lanes) {
    AfterLast(first, *lane);
    After(first, lane->waiting()->after);
  }
  const EventRef ready = first->Record();
  for (size_t i = 0; i < group.lanes.size(); ++i) {
    PeerLane& lane = *group.lanes[i];
    if (i > 0) lane.stream->Wait(ready);
    for (const Copy& copy : plan_.copies) {
      if (copy.target != i) continue;
      lane.operations->Copy(*lane.stream, AsWords(copy.from, copy.bytes), AsWords(copy.to, copy.bytes));
    }
    if (i > 0) first->Join(lane.stream->Record());
  }
  const EventRef copied = first->Record();
  for (PeerLane* lane : group.lanes) MarkIssued(lane, copied, first, 4 * static_cast<int>(group.lanes.size()) + 2);
}

void PeerState::MarkIssued(PeerLane* lane, const EventRef& copied, const Stream* on, int commands) {
  PeerOperation& operation = *lane->waiting();
  operation.copied = copied;
  operation.commands = commands;
  ++lane->issued;
  lane->commands += commands;
  lane->last = copied;
  lane->last_on = on;
  operation.done->Bind(copied);
  if (lane->issued == 1) RingIfAsleep(copied);
  work_.push_back(lane);
}

void PeerState::Retire(PeerLane* lane) {
  while (lane->issued > 0 && lane->ring[0].copied->Done()) {
    const PeerOperation& head = lane->ring[0];
    if (!head.copied->status().ok()) {
      Fail(directory_.Explain(*lane, head, head.copied->status()));
      head.done->Fail(error_, world_->Now());
    }
    lane->commands -= head.commands;
    --lane->issued;
    lane->ring.Pop();
  }
}

void PeerState::Abort(absl::Status cause) {
  std::lock_guard lock(mutex_);
  Fail(std::move(cause));
}

// What has been issued ends as its stream does.
void PeerState::Fail(absl::Status cause) {
  CHECK(!cause.ok()) << "an abort needs a cause";
  if (!error_.ok()) return;
  error_ = std::move(cause);
  const Nanoseconds now = world_->Now();
  for (const auto& [key, lane] : directory_.lanes()) {
    if (lane->stream != nullptr) lane->stream->Abort(error_);
    for (size_t i = lane->issued; i < lane->ring.size(); ++i) lane->ring[i].done->Fail(error_, now);
  }
}

void PeerState::RingIfAsleep(const EventRef& event) {
  if (!ticking_ || !event->NeedsPolling()) bell_.Ring(world_->Now());
}

void PeerState::Run() {
  std::vector<EventRef> events;
  for (;;) {
    events.clear();
    events.push_back(bell_.Arm());
    std::unique_lock lock(mutex_);
    if (closing_) return;
    ticking_ = false;
    events.reserve(1 + directory_.lanes().size());
    for (const auto& [key, lane] : directory_.lanes()) {
      Retire(lane.get());
      Advance(lane.get());
      if (lane->issued == 0) continue;
      const EventRef& next = lane->ring[0].copied;
      ticking_ |= next->NeedsPolling();
      if (!next->NeedsPolling()) events.push_back(next);
    }
    const Nanoseconds deadline = ticking_ ? world_->Now() + kTick : kForever;
    lock.unlock();
    world_->WaitAny(events, deadline);
  }
}

}  // namespace sluice::internal
