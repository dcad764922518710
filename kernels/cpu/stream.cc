#include "kernels/cpu/stream.h"

#include <array>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sluice::cpu {

absl::Status StatusOfException() {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("out of host memory inside an operation");
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("an operation failed: ", error.what()));
  } catch (...) {
    return absl::InternalError("an operation failed");
  }
}

CpuStream::CpuStream(World* world, absl::string_view name, int threads, std::vector<int> processors)
    : world_(world), team_(threads, processors) {
  TaskOptions options;
  options.name = std::string(name);
  if (!processors.empty()) options.processors = {processors.front()};
  task_ = world_->Spawn(std::move(options), [this] { Run(); });
}

CpuStream::~CpuStream() {
  Ref<Signal> sleeper;
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
    sleeper = std::move(command_issued_);
  }
  if (sleeper) sleeper->Set(absl::OkStatus(), world_->Now());
  world_->WaitAny({&task_, 1}, kForever);
}

CpuStream::Command* CpuStream::BeginCommand() {
  while (true) {
    Ref<Signal> space;
    {
      std::lock_guard lock(mutex_);
      if (issued_ - ended_ < kCommands) return &ring_[issued_ % kCommands];
      space = command_ended_ = signals_->Take();
    }
    const EventRef event = space;
    world_->WaitAny({&event, 1}, kForever);
  }
}

void CpuStream::EndCommand() {
  Ref<Signal> sleeper;
  {
    std::lock_guard lock(mutex_);
    ++issued_;
    sleeper = std::move(command_issued_);
  }
  if (sleeper) sleeper->Set(absl::OkStatus(), world_->Now());
}

// True: a command is there. False: the stream is closed and drained.
bool CpuStream::WaitForCommand() {
  while (true) {
    Ref<Signal> command;
    {
      std::lock_guard lock(mutex_);
      if (ended_ < issued_) return true;
      if (closing_) return false;
      command = command_issued_ = signals_->Take();
    }
    const EventRef event = command;
    world_->WaitAny({&event, 1}, kForever);
  }
}

void CpuStream::Run() {
  while (WaitForCommand()) {
    Command& command = ring_[ended_ % kCommands];  // only this task writes ended_
    if (std::exchange(marked_, false)) mark_ = world_->Now();
    command.run(this, command.arguments);
    Ref<Signal> sleeper;
    {
      std::lock_guard lock(mutex_);
      ++ended_;
      sleeper = std::move(command_ended_);
    }
    if (sleeper) sleeper->Set(absl::OkStatus(), world_->Now());
  }
}

// A command can't own a handle, so it holds a released one and takes it back when it runs; every command runs once.
template <CpuStream::Mark kMark>
void CpuStream::WaitAs(const EventRef& event) {
  Command* command = BeginCommand();
  new (command->arguments) Event*(EventRef(event).release());
  command->run = [](CpuStream* stream, std::byte* arguments) {
    Event* const released = *std::launder(reinterpret_cast<Event**>(arguments));
    const EventRef waited(released);
    released->Release();
    if (stream->Goes()) {
      const std::array<EventRef, 2> events = {waited, stream->aborted_};
      stream->status_ = events[*stream->world_->WaitAny(events, kForever)]->status();
    }
    if (kMark == Mark::kMove) stream->marked_ = true;
  };
  EndCommand();
}
template void CpuStream::WaitAs<CpuStream::Mark::kKeep>(const EventRef&);
template void CpuStream::WaitAs<CpuStream::Mark::kMove>(const EventRef&);

template <CpuStream::Mark kMark>
EventRef CpuStream::RecordAs() {
  Ref<Signal> signal = signals_->Take();
  const EventRef event = signal;
  Command* command = BeginCommand();
  new (command->arguments) Signal*(signal.release());
  command->run = [](CpuStream* stream, std::byte* arguments) {
    Signal* const released = *std::launder(reinterpret_cast<Signal**>(arguments));
    const Ref<Signal> recorded(released);
    released->Release();
    const Nanoseconds now = stream->world_->Now();
    if (kMark == Mark::kMove) stream->marked_ = true;
    recorded->Set(stream->status_, stream->mark_, now);
  };
  EndCommand();
  return event;
}
template EventRef CpuStream::RecordAs<CpuStream::Mark::kKeep>();
template EventRef CpuStream::RecordAs<CpuStream::Mark::kMove>();

void CpuStream::Drain() {
  const EventRef rest = Record();
  world_->WaitAny({&rest, 1}, kForever);
}

void CpuStream::CopyToDevice(const void* host, TensorView device) {
  if (device.bytes() == 0) return;
  Issue([host, device](Team&) { std::memcpy(device.data, host, device.bytes()); });
}

void CpuStream::CopyToHost(TensorView device, void* host) {
  if (device.bytes() == 0) return;
  Issue([host, device](Team&) { std::memcpy(host, device.data, device.bytes()); });
}

}  // namespace sluice::cpu
