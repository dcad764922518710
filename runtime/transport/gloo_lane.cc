#include "runtime/transport/gloo_lane.h"

#include <cstring>
#include <utility>

#include "base/check.h"

namespace sluice::internal {
namespace {

// How many pieces of a lane may be under way: enough to keep a connection busy while the lane's thread wakes up.
constexpr int kPieces = 8;
// Messages up to this size are given to Gloo by whoever starts them, which saves the way through the lane's thread;
// copying more would hold them up.
constexpr int64_t kAtOnceBytes = 16 << 10;
constexpr size_t kCopiedMax = 32;

}  // namespace

GlooLane::GlooLane(World* world, std::string name, Ended ended)
    : world_(world), ended_(std::move(ended)), stream_(kPieces) {
  task_ = world->Spawn({.name = std::move(name)}, [this] { Run(); });
}

GlooLane::~GlooLane() {
  {
    std::lock_guard lock(mutex_);
    CHECK(pending_ == 0 && collective_ == nullptr) << "transfers outlive their lane";
    closing_ = true;
    for (const Copied& copied : copied_) copied.message->Interrupt();
  }
  bell_.Ring(world_->Now());
  CHECK_OK(world_->Wait(task_));
}

bool GlooLane::SendAtOnce(GlooLink* link, uint64_t tag, const std::byte* data, int64_t bytes) {
  if (bytes > kAtOnceBytes || !link->PeerWaits(tag)) return false;
  Copied copied{.data = std::make_unique_for_overwrite<std::byte[]>(bytes)};
  std::memcpy(copied.data.get(), data, bytes);
  copied.message = std::make_unique<GlooMessage>(link, Direction::kSend, tag, copied.data.get(), bytes);
  copied.message->PostPieceHere();  // a connection that has broken is reported by its ear
  std::lock_guard lock(mutex_);
  copied_.push_back(std::move(copied));
  if (copied_.size() == kCopiedMax) bell_.Ring(world_->Now());
  return true;
}

void GlooLane::Start(GlooLink* link, Direction direction, uint64_t tag, std::byte* data, int64_t bytes) {
  auto message = std::make_unique<GlooMessage>(link, direction, tag, data, bytes);
  {
    std::lock_guard lock(mutex_);
    if (bytes <= kAtOnceBytes) {
      message->PostPieceHere();
    } else if (message->pieces() == 1) {
      message->PostPiece();  // need not wait for the lane's thread to wake up
    }
    ++pending_;
    started_.push_back(std::move(message));
  }
  bell_.Ring(world_->Now());
}

void GlooLane::Start(RemoteCollective collective) {
  {
    std::lock_guard lock(mutex_);
    collective_ = std::make_unique<RemoteCollective>(std::move(collective));
  }
  bell_.Ring(world_->Now());
}

void GlooLane::Run() {
  for (;;) {
    const EventRef rung = bell_.Arm();
    std::unique_ptr<RemoteCollective> collective;
    std::vector<Copied> copied;
    bool closing = false;
    {
      std::lock_guard lock(mutex_);
      closing = closing_;
      if (closing || copied_.size() >= kCopiedMax) copied.swap(copied_);
      for (auto& message : started_) stream_.Push(std::move(message));
      started_.clear();
      collective = std::move(collective_);
    }
    for (const Copied& one : copied) one.message->WaitForPiece().IgnoreError();
    if (closing) return;
    if (collective != nullptr) {
      const absl::Status status = internal::Run(world_, collective.get());
      ended_(status, collective->began, world_->Now());
    } else if (!stream_.empty()) {
      Advance();
    } else {
      world_->WaitAny({rung}, kForever);
    }
  }
}

void GlooLane::Advance() {
  absl::Status status = stream_.WaitForPiece();
  const Nanoseconds now = world_->Now();
  if (began_ < 0) began_ = now;
  if (status.ok() && !stream_.front().done()) return;
  if (!status.ok()) status = stream_.front().link()->CauseOf(status);
  stream_.Pop();
  const Nanoseconds began = std::exchange(began_, -1);
  {
    std::lock_guard lock(mutex_);
    --pending_;
  }
  ended_(status, began, now);
}

}  // namespace sluice::internal
