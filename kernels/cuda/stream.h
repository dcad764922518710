// A CUDA stream. What is issued goes to the GPU at once, unless the stream is *held*: it has to wait for an event that
// the GPU can't wait for yet, because nobody has issued it (another held stream's, a transport's that isn't matched) or
// because it is the host's. Then the commands lie in a ring, as kernels/cpu/stream.h has it, and go to the GPU as soon
// as the event is issued or done. So the issuing thread never waits, but for room in the ring.
//
// Threads: one issuing thread; held commands are issued by a task of the device; Abort() any.
// Ownership: a command holds plain values; the tensors it names must live until it has run.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "kernels/cuda/device_state.h"
#include "kernels/cuda/errors.h"
#include "kernels/cuda/event.h"
#include "kernels/cuda/staging.h"
#include "kernels/cuda/workspace.h"
#include "kernels/device.h"

namespace sluice::cuda {

enum class StreamPriority : uint8_t { kUsual, kHighest };

class CudaStream final : public Stream {
 public:
  // A stream that couldn't be made has that as its error.
  CudaStream(DeviceState* state, Device* device, absl::string_view name,
             StreamPriority priority = StreamPriority::kUsual);
  ~CudaStream() override;

  void Wait(const EventRef& event) override { WaitAs(event, Mark::kMove); }
  EventRef Record() override { return RecordAs(Mark::kMove); }
  EventRef Fork() override { return RecordAs(Mark::kKeep); }
  void Join(const EventRef& event) override { WaitAs(event, Mark::kKeep); }
  void Drain() override;
  void Abort(const absl::Status& cause) override;
  void CopyToDevice(const void* host, TensorView device) override;
  void CopyToHost(TensorView device, void* host) override;

  // Issues body(cudaStream_t, const Workspace&) -> cudaError_t, a small plain value (its arguments captured by value).
  // Its error becomes the stream's, with the operation's name, which is a literal.
  template <class Body>
  void Issue(const char* operation, const Body& body) {
    static_assert(std::is_trivially_copyable_v<Body> && sizeof(Body) <= kArgumentBytes);
    std::unique_lock lock(mutex_);
    GoOn();
    if (!held()) return Do(operation, body);
    Command* command = NewCommand(lock);
    command->operation = operation;
    command->run = [](CudaStream* stream, Command& self) {
      stream->Do(self.operation, *std::launder(reinterpret_cast<Body*>(self.arguments)));
      return true;
    };
    new (command->arguments) Body(body);
    ++issued_;
    GoOn();
  }
  // What Issue() gives to bodies from now on has so many bytes at least. Allocates, where it had less.
  void ReserveWorkspace(int64_t bytes);

  // Called by the device's task: goes on if what the stream is held by has changed.
  void GoOnIfWoken();

 private:
  // Enough for the largest operation: the sum of 64 parts.
  static constexpr size_t kArgumentBytes = 64 * sizeof(void*) + 128;
  static constexpr size_t kCommands = 1024;
  struct Command {
    // False: it can't run yet, and is asked again later.
    bool (*run)(CudaStream* stream, Command& command);
    const char* operation;
    alignas(16) std::byte arguments[kArgumentBytes];
  };
  enum class Mark : uint8_t { kKeep, kMove };  // whether the next work begins a span
  class Bell final : public Waker {
   public:
    explicit Bell(CudaStream* stream) : stream_(stream) {}
    void Wake() override;

   private:
    CudaStream* const stream_;
  };
  struct HeldWait {
    Event* event;
    Mark mark;
  };
  struct HeldRecord {
    CudaEvent* event;
    uint64_t staged;
    Mark mark;
  };

  void WaitAs(const EventRef& event, Mark mark);
  EventRef RecordAs(Mark mark);
  // All below: REQUIRES the lock.
  bool held() const { return done_ < issued_; }
  // The slot to write, once there is room.
  Command* NewCommand(std::unique_lock<std::mutex>& lock);
  void GoOn();
  template <class Body>
  void Do(const char* operation, const Body& body) {
    if (!BeginWork()) return;
    if (const cudaError_t error = body(stream_, workspace_); error != cudaSuccess) SetError(error, operation);
  }
  // Work follows: false if the stream has failed.
  bool BeginWork();
  // False: it is not known yet what to wait for.
  bool TryWait(const EventRef& event, Mark mark);
  void DoRecord(CudaEvent* event, uint64_t staged, Mark mark);
  void SetError(cudaError_t error, const char* call);
  // A piece of pinned memory; waits for room.
  std::byte* Stage(std::unique_lock<std::mutex>& lock, int64_t bytes, void* host);
  void LookAgainAt(const EventRef& event);

  DeviceState* const state_;
  Device* const device_;
  const std::string name_;
  const std::shared_ptr<const std::string> where_;
  const Ref<Staging> staging_ = MakeRef<Staging>();
  cudaStream_t stream_ = nullptr;
  std::vector<Buffer> workspaces_;  // the last one is in use, the others may still be
  std::atomic<bool> woken_{false};
  Bell bell_{this};

  std::mutex mutex_;
  absl::Status status_;
  Workspace workspace_;
  Ref<TimedEvent> began_;  // when the first work after the last Record() or Wait() did; null: none yet
  std::unique_ptr<Command[]> ring_;
  uint64_t issued_ = 0, done_ = 0;  // commands that went through the ring
  EventRef watched_;                // what the stream is held by
  Ref<Signal> room_;                // there may be some in the ring
};

}  // namespace sluice::cuda
