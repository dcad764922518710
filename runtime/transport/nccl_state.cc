#include "runtime/transport/nccl_state.h"

#include <algorithm>

#include "base/check.h"
#include "base/status.h"
#include "runtime/transport/nccl_legs.h"

namespace sluice::internal {
namespace {

// The GPU's events call nobody when they are done, nor do NCCL's errors: the task looks at them this often.
constexpr Nanoseconds kTick = kMillisecond;
// For the GPU to come to rest after an abort. What has not by then ends all the same: the process is about to end.
constexpr Nanoseconds kAbortLimit = 10 * kSecond;
// To leave together with the others.
constexpr Nanoseconds kLeaveLimit = 2 * kSecond;

}  // namespace

NcclState::NcclState(World* world, NcclHubOptions options)
    : world_(world), options_(std::move(options)), directory_(options_.process_of, options_.process) {
  task_ = world->Spawn({.name = "nccl hub"}, [this] { Run(); });
}

NcclState::~NcclState() {
  {
    std::lock_guard lock(mutex_);
    directory_.CheckNoneIsOpen();
    closing_ = true;
  }
  bell_.Ring(world_->Now());
  CHECK_OK(world_->Wait(task_));
  if (error_.ok()) Leave();
}

void NcclState::Leave() {
  for (const auto& [rank, nccl] : ranks_) nccl->StartClose();
  for (const Nanoseconds limit = world_->Now() + kLeaveLimit; world_->Now() < limit;) {
    const bool left = std::all_of(ranks_.begin(), ranks_.end(), [](const auto& rank) {
      const absl::StatusOr<bool> settled = rank.second->Poll();
      return !settled.ok() || *settled;
    });
    if (left) return;
    world_->SleepUntil(world_->Now() + kTick);
  }
}

absl::Status NcclState::Open(WorldRank rank, Device* device, const std::vector<ChannelSpec>& channels,
                             const std::vector<GroupSpec>& groups) {
  std::lock_guard lock(mutex_);
  RETURN_IF_ERROR(error_);
  RETURN_IF_ERROR(directory_.CheckMayOpen(rank));
  if (absl::Status status = directory_.Open(rank, channels, groups); !status.ok()) {
    Fail(status);
    return status;
  }
  devices_[rank] = device;
  specs_.channels.insert(specs_.channels.end(), channels.begin(), channels.end());
  specs_.groups.insert(specs_.groups.end(), groups.begin(), groups.end());
  return absl::OkStatus();
}

absl::Status NcclState::Connect() {
  {
    std::lock_guard lock(mutex_);
    RETURN_IF_ERROR(error_);
  }
  absl::StatusOr<NcclConnections> made = ConnectOverNccl(world_, options_, specs_, devices_);
  std::lock_guard lock(mutex_);
  if (!made.ok()) Fail(made.status());
  if (made.ok()) Install(*std::move(made));
  return error_;
}

void NcclState::Install(NcclConnections connections) {
  ranks_ = std::move(connections.ranks);
  if (!error_.ok()) {
    for (const auto& [rank, nccl] : ranks_) nccl->Abort();
    return;
  }
  const CommunicatorPlan& plan = connections.plan;
  const auto add = [&](auto* routes, const NcclLane* lane, size_t target, size_t communicator, WorldRank place_of) {
    if (lane == nullptr) return;
    (*routes)[{lane, target}] = {.communicator = plan.NumberAt(lane->rank(), communicator),
                                 .place = plan.communicators[communicator].PlaceOf(place_of)};
  };
  for (size_t i = 0; i < directory_.channels().size(); ++i) {
    const Directory<NcclLane>::Channel& channel = directory_.channels()[i];
    const size_t communicator = plan.of_channel.at(channel.spec.id);
    add(&transfers_, channel.send, i, communicator, channel.spec.receiver);
    add(&transfers_, channel.recv, i, communicator, channel.spec.sender);
  }
  for (size_t i = 0; i < directory_.groups().size(); ++i) {
    const Directory<NcclLane>::Group& group = directory_.groups()[i];
    for (const NcclLane* lane : group.lanes) {
      if (lane != nullptr) add(&collectives_, lane, i, plan.of_group.at(group.spec.id), lane->rank());
    }
  }
  connected_ = true;
  for (const auto& [key, lane] : directory_.lanes()) {
    lane->nccl = ranks_[lane->rank()].get();
    lane->stream = std::move(connections.streams[{lane->rank(), lane->queue()}]);
    Issue(lane.get());
  }
}

EventRef NcclState::PostTransfer(WorldRank rank, ChannelId id, Request request) {
  std::lock_guard lock(mutex_);
  NcclLane* lane = directory_.Aim(rank, id, &request);
  return Post(lane, std::move(request));
}

EventRef NcclState::PostCollective(WorldRank rank, GroupId id, Request request) {
  std::lock_guard lock(mutex_);
  NcclLane* lane = directory_.Aim(rank, id, &request);
  return Post(lane, std::move(request));
}

EventRef NcclState::Post(NcclLane* lane, Request request) {
  NcclOperation operation{std::move(request)};
  operation.done = events_->Take();
  if (!operation.after) operation.after = DoneEvent();
  const EventRef done = operation.done;
  Retire(lane);
  absl::Status status = directory_.Check(lane->rank(), operation);
  if (status.ok() && error_.ok()) status = CheckFit(lane, &operation);
  if (!status.ok()) Fail(status);
  if (!error_.ok()) {
    operation.done->Fail(error_, world_->Now());
    return done;
  }
  lane->ring.Push(std::move(operation));
  Issue(lane);
  return done;
}

absl::Status NcclState::CheckFit(const NcclLane* lane, NcclOperation* operation) {
  if (operation->is_collective()) {
    const Directory<NcclLane>::Group& group = directory_.group(*operation);
    const auto place = std::find(group.lanes.begin(), group.lanes.end(), lane) - group.lanes.begin();
    const auto here = std::count_if(group.spec.members.begin(), group.spec.members.end(),
                                    [&](WorldRank member) { return directory_.IsHere(member); });
    return Annotate(order_.CheckCollective(group.spec, place, here, *operation), directory_.Describe(*operation));
  }
  const Directory<NcclLane>::Channel& channel = directory_.channel(*operation);
  if (channel.other_process == directory_.self()) operation->crosses = !order_.FitsTransfer(channel.spec, *operation);
  return absl::OkStatus();
}

const NcclRoute& NcclState::RouteOf(const NcclLane& lane, const Request& request) const {
  return (request.is_collective() ? collectives_ : transfers_).at({&lane, request.target});
}

void NcclState::Issue(NcclLane* lane) {
  if (!connected_ || !error_.ok()) return;
  while (lane->issued < lane->ring.size() && !lane->ring[lane->issued].crosses) {
    IssueOn(lane, &lane->ring[lane->issued++]);
  }
  if (lane->issued > 0 && !ticking_) bell_.Ring(world_->Now());
}

void NcclState::IssueOn(NcclLane* lane, NcclOperation* operation) {
  Stream* const stream = lane->stream.get();
  const NcclRoute& route = RouteOf(*lane, *operation);
  if (!lane->spare_legs.empty()) {
    operation->legs = std::move(lane->spare_legs.back());
    lane->spare_legs.pop_back();
  }
  if (!operation->after->Done() || !operation->after->status().ok()) stream->Wait(operation->after);
  if (!operation->is_collective()) {
    std::byte* const data = operation->slot->buffer.data();
    const bool sends = operation->kind == Request::Kind::kSend;
    operation->legs.assign(1, {.from = sends ? data : nullptr,
                               .to = sends ? nullptr : data,
                               .bytes = directory_.channel(*operation).spec.bytes,
                               .peer = route.place});
    lane->nccl->Issue(stream, route.communicator, operation->legs);
  } else if (!IsEven(*operation)) {
    MakeLegs(*operation, route.place, static_cast<int>(directory_.group(*operation).lanes.size()), &operation->legs);
    if (!operation->legs.empty()) lane->nccl->Issue(stream, route.communicator, operation->legs);
  } else if (operation->mine.bytes() > 0) {
    lane->nccl->AllGather(stream, route.communicator, operation->mine.data, operation->all.data,
                          operation->mine.bytes());
  }
  operation->on_device = stream->Record();
  operation->done->Bind(operation->on_device, aborted_);
}

void NcclState::Retire(NcclLane* lane) {
  while (lane->issued > 0 && lane->ring[0].done->Done()) {
    NcclOperation head = lane->ring.Pop();
    --lane->issued;
    for (const cuda::NcclLeg& leg : head.legs) {
      if (leg.from == nullptr || leg.to == nullptr) bytes_moved_.fetch_add(leg.bytes, std::memory_order_relaxed);
    }
    lane->spare_legs.push_back(std::move(head.legs));
  }
}

void NcclState::LookForErrors() {
  for (const auto& [rank, nccl] : ranks_) {
    if (const absl::Status status = nccl->Poll().status(); !status.ok()) Fail(status);
  }
  for (const auto& [key, lane] : directory_.lanes()) {
    if (lane->issued == 0 || !error_.ok()) continue;
    const NcclOperation& head = lane->ring[0];
    if (head.on_device->Done() && !head.on_device->status().ok())
      Fail(directory_.Explain(*lane, head, head.on_device->status()));
  }
}

void NcclState::Abort(absl::Status cause) {
  std::lock_guard lock(mutex_);
  Fail(std::move(cause));
}

// The flag first: what ends from here on has not ended well.
void NcclState::Fail(absl::Status cause) {
  CHECK(!cause.ok()) << "an abort needs a cause";
  if (!error_.ok()) return;
  error_ = std::move(cause);
  aborted_->Set();
  const Nanoseconds now = world_->Now();
  for (const auto& [key, lane] : directory_.lanes()) {
    if (lane->stream != nullptr) lane->stream->Abort(error_);
  }
  for (const auto& [rank, nccl] : ranks_) nccl->Abort();
  for (const auto& [key, lane] : directory_.lanes()) {
    for (size_t i = lane->issued; i < lane->ring.size(); ++i) lane->ring[i].done->Fail(error_, now);
  }
  give_up_at_ = now + kAbortLimit;
  bell_.Ring(now);
}

// An operation that was issued ends when the GPU no longer touches its memory.
void NcclState::EndAborted() {
  const Nanoseconds now = world_->Now();
  for (const auto& [key, lane] : directory_.lanes()) {
    for (size_t i = 0; i < lane->issued; ++i) {
      const NcclOperation& operation = lane->ring[i];
      if (operation.on_device->Done() || now >= give_up_at_) operation.done->Fail(error_, now);
    }
  }
}

// A rank that leaves while anybody here counts on it ends all; its memory is not touched afterwards.
void NcclState::Close(WorldRank rank) {
  std::vector<std::unique_ptr<Stream>> streams;
  {
    std::lock_guard lock(mutex_);
    directory_.MarkClosed(rank);
    for (const auto& [key, lane] : directory_.lanes()) Retire(lane.get());
    for (const auto& [key, lane] : directory_.lanes()) {
      for (size_t i = 0; i < lane->ring.size() && error_.ok(); ++i) {
        if (!directory_.TakesPart(lane->ring[i], rank)) continue;
        Fail(absl::UnavailableError(absl::StrCat("rank ", rank.value(), " has left while rank ", lane->rank().value(),
                                                 " waited in ", directory_.Describe(lane->ring[i]))));
      }
      if (lane->rank() == rank && lane->stream != nullptr) streams.push_back(std::move(lane->stream));
    }
  }
  streams.clear();  // each waits for its end
}

// Without the lock: who hears of it may abort others, who tell this one.
void NcclState::TellFailure(std::unique_lock<std::mutex>& lock) {
  if (error_.ok() || !options_.on_failure || std::exchange(told_, true)) return;
  const absl::Status cause = error_;
  lock.unlock();
  options_.on_failure(cause);
  lock.lock();
}

void NcclState::Run() {
  for (;;) {
    const EventRef rung = bell_.Arm();
    std::unique_lock lock(mutex_);
    ticking_ = false;
    if (!closing_ && error_.ok()) LookForErrors();
    if (!error_.ok()) EndAborted();
    TellFailure(lock);
    if (closing_) return;
    for (const auto& [key, lane] : directory_.lanes()) {
      Retire(lane.get());
      ticking_ |= lane->issued > 0;
    }
    const Nanoseconds deadline = ticking_ ? world_->Now() + kTick : kForever;
    lock.unlock();
    world_->WaitAny({&rung, 1}, deadline);
  }
}

}  // namespace sluice::internal
