// A CPU stream: a task of the World that runs commands in order on its own thread team.
//
// Commands lie in a ring of fixed-size slots: issuing one copies its arguments and allocates nothing.
// Threads: one issuing thread; the stream's task computes. The two meet under one mutex, and wait for each other
// through the World: with a team of one, everything also works in a simulated world. Ownership: a command holds plain
// values; the tensors it names must live until it has run. The world must outlive the stream.
#pragma once

#include <cstddef>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/signal_pool.h"
#include "base/world.h"
#include "kernels/cpu/team.h"
#include "kernels/device.h"

namespace sluice::cpu {

// What the exception in flight means. REQUIRES: called while handling one.
absl::Status StatusOfException();

class CpuStream final : public Stream {
 public:
  CpuStream(World* world, absl::string_view name, int threads, std::vector<int> processors);
  ~CpuStream() override;

  void Wait(const EventRef& event) override { WaitAs<Mark::kMove>(event); }
  EventRef Record() override { return RecordAs<Mark::kMove>(); }
  EventRef Fork() override { return RecordAs<Mark::kKeep>(); }
  void Join(const EventRef& event) override { WaitAs<Mark::kKeep>(event); }
  void Drain() override;
  void Abort(const absl::Status& cause) override { aborted_->Set(cause, world_->Now()); }
  void CopyToDevice(const void* host, TensorView device) override;
  void CopyToHost(TensorView device, void* host) override;

  // Issues body(team), a small plain value (its arguments captured by value). What it throws becomes the stream's
  // error.
  template <class Body>
  void Issue(const Body& body) {
    static_assert(std::is_trivially_copyable_v<Body> && sizeof(Body) <= kArgumentBytes);
    Command* command = BeginCommand();
    command->run = [](CpuStream* stream, std::byte* arguments) {
      if (stream->Goes()) stream->Try(*std::launder(reinterpret_cast<Body*>(arguments)));
    };
    new (command->arguments) Body(body);
    EndCommand();
  }

 private:
  // Enough for the largest operation: the sum of 64 parts.
  static constexpr size_t kArgumentBytes = 64 * sizeof(void*) + 128;
  static constexpr size_t kCommands = 512;
  struct Command {
    void (*run)(CpuStream* stream, std::byte* arguments);
    alignas(16) std::byte arguments[kArgumentBytes];
  };

  // Whether the next command is the first of a span that is measured.
  enum class Mark : uint8_t { kKeep, kMove };
  template <Mark kMark>
  EventRef RecordAs();
  template <Mark kMark>
  void WaitAs(const EventRef& event);

  // No error so far.
  bool Goes() {
    if (status_.ok() && aborted_->Done()) status_ = aborted_->status();
    return status_.ok();
  }
  template <class Body>
  void Try(Body& body) {
    try {
      body(team_);
    } catch (...) {
      status_ = StatusOfException();
    }
  }
  // The slot to write; waits while the ring is full. EndCommand() hands it to the stream's task.
  Command* BeginCommand();
  void EndCommand();
  // The stream's task.
  void Run();
  bool WaitForCommand();

  World* const world_;
  const Ref<SignalPool> signals_ = MakeRef<SignalPool>();
  Team team_;
  const Ref<Signal> aborted_ = MakeRef<Signal>();
  const std::unique_ptr<Command[]> ring_ = std::make_unique<Command[]>(kCommands);

  std::mutex mutex_;
  // Commands issued and ended so far, the issuer's end, and whoever sleeps until one of them changes.
  uint64_t issued_ = 0;
  uint64_t ended_ = 0;
  bool closing_ = false;
  Ref<Signal> command_issued_;
  Ref<Signal> command_ended_;

  // Of the stream's task.
  absl::Status status_;
  Nanoseconds mark_ = 0;  // when the first command after the previous Record() or Wait() began
  bool marked_ = true;    // the next command is that one

  EventRef task_;
};

}  // namespace sluice::cpu
