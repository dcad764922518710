#include "kernels/cuda/stream.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace sluice::cuda {
namespace {

constexpr Nanoseconds kDrainPoll = 50 * kMicrosecond;

}  // namespace

CudaStream::CudaStream(DeviceState* state, Device* device, absl::string_view name, StreamPriority priority)
    : state_(state),
      device_(device),
      name_(name),
      where_(std::make_shared<const std::string>(absl::StrCat("stream ", name, " of ", state->name()))) {
  status_ = state_->Enter();
  if (status_.ok()) {
    int least = 0, greatest = 0;
    cudaError_t error = cudaDeviceGetStreamPriorityRange(&least, &greatest);
    const int wanted = priority == StreamPriority::kHighest ? greatest : least;
    if (error == cudaSuccess) error = cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, wanted);
    if (error != cudaSuccess) SetError(error, "cudaStreamCreateWithPriority");
  }
  state_->Add(this);
}

CudaStream::~CudaStream() {
  Drain();
  state_->Remove(this);
  if (stream_ != nullptr) IgnoreError(cudaStreamDestroy(stream_));
}

void CudaStream::Bell::Wake() {
  stream_->woken_.store(true, std::memory_order_release);
  stream_->state_->Ring();
}

// Work that was issued before may still use the smaller one.
void CudaStream::ReserveWorkspace(int64_t bytes) {
  if (!workspaces_.empty() && bytes <= workspaces_.back().bytes()) return;
  auto buffer = device_->Allocate(bytes, absl::StrCat("the workspace of stream ", name_));
  std::lock_guard lock(mutex_);
  if (!buffer.ok()) {
    if (status_.ok()) status_ = buffer.status();
    return;
  }
  workspaces_.push_back(*std::move(buffer));
  workspace_ = {workspaces_.back().data(), workspaces_.back().bytes()};
}

void CudaStream::GoOnIfWoken() {
  if (!woken_.exchange(false, std::memory_order_acq_rel)) return;
  std::lock_guard lock(mutex_);
  GoOn();
}

void CudaStream::GoOn() {
  if (!held()) return;
  while (held()) {
    Command& command = ring_[done_ % kCommands];
    if (!command.run(this, command)) break;
    ++done_;
  }
  if (room_ && issued_ - done_ < kCommands)
    std::exchange(room_, nullptr)->Set(absl::OkStatus(), state_->world()->Now());
}

CudaStream::Command* CudaStream::NewCommand(std::unique_lock<std::mutex>& lock) {
  if (ring_ == nullptr) ring_ = std::make_unique<Command[]>(kCommands);
  while (issued_ - done_ == kCommands) {
    room_ = MakeRef<Signal>();
    const EventRef room = room_;
    lock.unlock();
    state_->world()->WaitAny({&room, 1}, kForever);
    lock.lock();
  }
  return &ring_[issued_ % kCommands];
}

bool CudaStream::BeginWork() {
  if (status_.ok()) status_ = state_->Enter();
  if (!status_.ok() || began_) return status_.ok();
  began_ = state_->timed_events()->Take();
  const cudaError_t error = began_->Record(stream_, state_->world()->Now());
  if (error != cudaSuccess) SetError(error, "cudaEventRecord");
  return status_.ok();
}

void CudaStream::SetError(cudaError_t error, const char* call) { status_ = CudaError(error, call, *where_); }

// Whoever waits holds the lock, so the event is looked at again after it is watched, or a change would be missed.
bool CudaStream::TryWait(const EventRef& event, Mark mark) {
  if (status_.ok()) {
    const Event* const subject = event->StandsFor();
    const auto* const on_gpu = dynamic_cast<const CudaEvent*>(subject);
    if (on_gpu != nullptr && on_gpu->issued() && !on_gpu->failed()) {
      // Its own stream's work is in order anyway.
      if (on_gpu->stream() != stream_) {
        status_ = state_->Enter();
        const cudaError_t error = status_.ok() ? cudaStreamWaitEvent(stream_, on_gpu->get(), 0) : cudaSuccess;
        if (error != cudaSuccess) SetError(error, "cudaStreamWaitEvent");
      }
    } else if (event->Done()) {
      status_ = event->status();
    } else {
      return false;
    }
  }
  if (mark == Mark::kMove) began_ = nullptr;
  return true;
}

void CudaStream::LookAgainAt(const EventRef& event) {
  if (watched_ == event) return;
  if (watched_) watched_->Unwatch(&bell_);
  watched_ = event;
  if (watched_ && !watched_->Watch(&bell_)) bell_.Wake();
}

void CudaStream::WaitAs(const EventRef& event, Mark mark) {
  std::unique_lock lock(mutex_);
  GoOn();
  if (!held() && TryWait(event, mark)) return;
  Command* command = NewCommand(lock);
  // A command can't own a handle, so it holds a released one and takes it back when it has run.
  new (command->arguments) HeldWait{EventRef(event).release(), mark};
  command->run = [](CudaStream* stream, Command& self) {
    const HeldWait wait = *std::launder(reinterpret_cast<HeldWait*>(self.arguments));
    const EventRef waited(wait.event);
    if (!stream->TryWait(waited, wait.mark)) {
      stream->LookAgainAt(waited);
      if (!stream->TryWait(waited, wait.mark)) return false;
    }
    stream->LookAgainAt(nullptr);
    wait.event->Release();
    return true;
  };
  ++issued_;
  GoOn();
}

EventRef CudaStream::RecordAs(Mark mark) {
  std::unique_lock lock(mutex_);
  GoOn();
  Ref<CudaEvent> event;
  {
    const absl::Status entered = state_->Enter();  // a pool that grows makes the GPU's events
    event = state_->events()->Take();
    if (status_.ok()) status_ = entered;
  }
  const EventRef recorded = event;
  const uint64_t staged = staging_->taken();
  if (!held()) {
    DoRecord(event.get(), staged, mark);
    return recorded;
  }
  Command* command = NewCommand(lock);
  new (command->arguments) HeldRecord{event.release(), staged, mark};
  command->run = [](CudaStream* stream, Command& self) {
    const HeldRecord record = *std::launder(reinterpret_cast<HeldRecord*>(self.arguments));
    stream->DoRecord(record.event, record.staged, record.mark);
    record.event->Release();
    return true;
  };
  ++issued_;
  GoOn();
  return recorded;
}

void CudaStream::DoRecord(CudaEvent* event, uint64_t staged, Mark mark) {
  const Nanoseconds now = state_->world()->Now();
  if (status_.ok()) status_ = state_->Enter();
  if (status_.ok()) {
    auto base = state_->clock().Base(now);
    status_ = base.status();
    if (base.ok()) {
      status_ = event->Issue({.world = state_->world(),
                              .stream = stream_,
                              .timed_events = state_->timed_events(),
                              .staging = staging_,
                              .staged = staged,
                              .base = *std::move(base),
                              .began = began_,
                              .where = where_});
      if (mark == Mark::kMove) began_ = nullptr;
      return;
    }
  }
  event->Fail(status_, now);
}

void CudaStream::Drain() {
  const EventRef rest = Record();
  state_->world()->WaitAny({&rest, 1}, kForever);
  if (rest->status().ok() || stream_ == nullptr) return;
  // The stream's own error says nothing of what the GPU still does.
  while (state_->Enter().ok() && cudaStreamQuery(stream_) == cudaErrorNotReady) {
    IgnoreError(cudaGetLastError());
    state_->world()->SleepUntil(state_->world()->Now() + kDrainPoll);
  }
}

void CudaStream::Abort(const absl::Status& cause) {
  std::lock_guard lock(mutex_);
  if (status_.ok()) status_ = cause;
  GoOn();
}

std::byte* CudaStream::Stage(std::unique_lock<std::mutex>& lock, int64_t bytes, void* host) {
  for (;;) {
    if (std::byte* piece = staging_->Take(bytes, host)) return piece;
    if (staging_->failed()) {
      if (status_.ok()) SetError(cudaErrorMemoryAllocation, "cudaHostAlloc");
      return nullptr;
    }
    lock.unlock();
    const EventRef copied = Record();
    state_->world()->WaitAny({&copied, 1}, kForever);
    lock.lock();
    if (!status_.ok()) return nullptr;
  }
}

void CudaStream::CopyToDevice(const void* host, TensorView device) {
  const int64_t bytes = device.bytes();
  for (int64_t done = 0; done < bytes; done += Staging::kPieceMax) {
    const int64_t piece_bytes = std::min(bytes - done, Staging::kPieceMax);
    std::unique_lock lock(mutex_);
    std::byte* const piece = Stage(lock, piece_bytes, nullptr);
    lock.unlock();
    if (piece == nullptr) return;
    std::memcpy(piece, static_cast<const std::byte*>(host) + done, piece_bytes);
    Issue("cudaMemcpyAsync to the device",
          [to = device.data + done, piece, piece_bytes](cudaStream_t stream, const Workspace&) {
            return cudaMemcpyAsync(to, piece, piece_bytes, cudaMemcpyHostToDevice, stream);
          });
  }
}

void CudaStream::CopyToHost(TensorView device, void* host) {
  const int64_t bytes = device.bytes();
  for (int64_t done = 0; done < bytes; done += Staging::kPieceMax) {
    const int64_t piece_bytes = std::min(bytes - done, Staging::kPieceMax);
    std::unique_lock lock(mutex_);
    std::byte* const piece = Stage(lock, piece_bytes, static_cast<std::byte*>(host) + done);
    lock.unlock();
    if (piece == nullptr) return;
    Issue("cudaMemcpyAsync to the host",
          [from = device.data + done, piece, piece_bytes](cudaStream_t stream, const Workspace&) {
            return cudaMemcpyAsync(piece, from, piece_bytes, cudaMemcpyDeviceToHost, stream);
          });
  }
}

}  // namespace sluice::cuda
