#include "runtime/transport/hub_state.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"

namespace sluice::internal {

namespace {

constexpr int64_t kCopyTasksMax = 8;

}  // namespace

HubState::HubState(World* world, std::vector<int> process_of, int self)
    : world_(world), directory_(std::move(process_of), self) {
  int64_t here = 0;
  for (int rank = 0; rank < directory_.ranks(); ++rank) here += directory_.IsHere(WorldRank(rank));
  copy_team_ = std::make_unique<CopyTeam>(world, static_cast<int>(std::clamp<int64_t>(here, 1, kCopyTasksMax)));
  work_.reserve(256);
  task_ = world->Spawn({.name = "transport"}, [this] { Run(); });
}

HubState::~HubState() {
  {
    std::lock_guard lock(mutex_);
    directory_.CheckNoneIsOpen();
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

absl::Status HubState::Open(WorldRank rank, const std::vector<ChannelSpec>& channels,
                            const std::vector<GroupSpec>& groups) {
  std::lock_guard lock(mutex_);
  RETURN_IF_ERROR(error_);
  RETURN_IF_ERROR(directory_.CheckMayOpen(rank));
  absl::Status status = directory_.Open(rank, channels, groups);
  if (!status.ok()) Fail(status);
  return status;
}

// A rank that leaves while anybody counts on it ends all; the memory of its own operations is not touched afterwards.
void HubState::Close(WorldRank rank) {
  std::vector<EventRef> moving;
  {
    std::lock_guard lock(mutex_);
    directory_.MarkClosed(rank);
    for (const auto& [key, lane] : directory_.lanes()) {
      for (size_t i = 0; i < lane->size(); ++i) {
        const Operation& operation = (*lane)[i];
        if (operation.moving && directory_.TakesPart(operation, rank)) moving.push_back(operation.done);
      }
    }
    Leave(rank);
  }
  for (const EventRef& event : moving) world_->Wait(event).IgnoreError();
}

void HubState::Leave(WorldRank rank) {
  for (const auto& [key, lane] : directory_.lanes()) {
    for (size_t i = 0; i < lane->size(); ++i) {
      const Operation& operation = (*lane)[i];
      // What is moving with a rank of another process may have moved already.
      if (!directory_.TakesPart(operation, rank) || (operation.moving && !directory_.IsHere(rank))) continue;
      return Fail(absl::UnavailableError(absl::StrCat("rank ", rank.value(), " has left while rank ",
                                                      lane->rank().value(), " waited in ", directory_.Describe(operation))));
    }
  }
}

void HubState::HearLastWords(int process, const absl::Status& words) {
  std::lock_guard lock(mutex_);
  if (!words.ok()) return Fail(words);
  for (int index = 0; index < directory_.ranks(); ++index) {
    const WorldRank rank(index);
    if (directory_.ProcessOf(rank) != process) continue;
    directory_.MarkClosed(rank);
    Leave(rank);
  }
  links_[process]->Interrupt();
}

EventRef HubState::PostTransfer(WorldRank rank, ChannelId id, Request request) {
  std::lock_guard lock(mutex_);
  Lane* lane = directory_.Aim(rank, id, &request);
  return Post(lane, {std::move(request)});
}

EventRef HubState::PostCollective(WorldRank rank, GroupId id, Request request) {
  std::lock_guard lock(mutex_);
  Lane* lane = directory_.Aim(rank, id, &request);
  return Post(lane, {std::move(request)});
}

EventRef HubState::Post(Lane* lane, Operation operation) {
  operation.done = signals_->Take();
  if (!operation.after) operation.after = DoneEvent();
  const EventRef done = operation.done;
  if (absl::Status status = directory_.Check(lane->rank(), operation); !status.ok()) Fail(status);
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
  for (const auto& [key, lane] : directory_.lanes()) {
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
  for (const Channel& channel : directory_.channels()) {
    if (channel.other_process != directory_.self()) channels->push_back(channel.spec);
  }
  for (const Group& group : directory_.groups()) {
    if (!group.is_local) groups->push_back(group.spec);
  }
}

// A lane needs a thread of its own once it leads to another process; a collective runs on the lane of its first member
// here.
std::vector<Lane*> HubState::RemoteLanes() const {
  std::vector<Lane*> lanes;
  for (const Channel& channel : directory_.channels()) {
    if (channel.other_process != directory_.self()) lanes.push_back(channel.send != nullptr ? channel.send : channel.recv);
  }
  for (const Group& group : directory_.groups()) {
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
  for (const auto& [key, lane] : directory_.lanes()) Advance(lane.get());
  RingIfWanted();
}

}  // namespace sluice::internal
