// A small Device for tests of what moves: plain memory, streams that are tasks of a World and run any function of a
// test, which may let virtual time pass. Of the operations only those that the end of a step needs.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <type_traits>
#include <vector>

#include "base/signal_pool.h"
#include "base/world.h"
#include "kernels/device.h"
#include "kernels/operations.h"

namespace sluice {

class TestStream final : public Stream {
 public:
  TestStream(World* world, absl::string_view name);
  ~TestStream() override;

  void Wait(const EventRef& event) override;
  EventRef Record() override;
  EventRef Fork() override;
  void Join(const EventRef& event) override;
  void Drain() override;
  void Abort(const absl::Status& cause) override { aborted_->Set(cause, world_->Now()); }
  void CopyToDevice(const void* host, TensorView device) override;
  void CopyToHost(TensorView device, void* host) override;

  // Issues body(world) -> absl::Status, a plain value. An error ends the stream.
  template <class Body>
  void Run(const Body& body) {
    static_assert(std::is_trivially_copyable_v<Body> && sizeof(Body) <= kBodyBytes);
    Command command;
    new (command.body) Body(body);
    command.run = [](std::byte* memory, World* world) {
      return (*std::launder(reinterpret_cast<Body*>(memory)))(world);
    };
    Issue(std::move(command));
  }

 private:
  static constexpr size_t kBodyBytes = 384;
  struct Command {
    absl::Status (*run)(std::byte*, World*) = nullptr;
    alignas(16) std::byte body[kBodyBytes] = {};
    EventRef wait;
    Ref<Signal> record;
    bool inside = false;  // of a span: Fork() or Join()
  };
  void Issue(Command command);
  void RunCommands();
  void Execute(Command& command);

  World* const world_;
  const Ref<SignalPool> signals_ = MakeRef<SignalPool>();
  const Ref<Signal> aborted_ = MakeRef<Signal>();
  Doorbell bell_{signals_};
  std::mutex mutex_;
  std::vector<Command> issued_, running_;  // swapped when the task takes what has been issued
  bool closing_ = false;
  absl::Status status_;
  Nanoseconds work_began_ = kForever;  // since the last Record() or Wait(); kForever: none yet
  EventRef task_;
};

struct TestDeviceOptions {
  int64_t memory_limit_bytes = 0;  // 0: none
};

class TestDevice final : public Device {
 public:
  TestDevice(World* world, const TestDeviceOptions& options);
  ~TestDevice() override;
  std::string description() const override { return "test device"; }
  absl::StatusOr<Buffer> Allocate(int64_t bytes, absl::string_view purpose) override;
  std::unique_ptr<Stream> NewStream(absl::string_view name) override;
  const Operations& operations() const override { return *operations_; }
  MemoryUse memory() const override;

 private:
  void Free(std::byte* data, int64_t bytes) override;

  World* const world_;
  const TestDeviceOptions options_;
  const std::unique_ptr<Operations> operations_;
  mutable std::mutex mutex_;
  MemoryUse memory_;
};

}  // namespace sluice
