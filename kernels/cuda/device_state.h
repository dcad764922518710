// What a GPU's device, its streams and its operations share.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/signal_pool.h"
#include "base/world.h"
#include "kernels/cuda/clock.h"
#include "kernels/cuda/event.h"
#include "kernels/device.h"

namespace sluice::cuda {

class CudaStream;

// Streams that are held (stream.h) and whose reason may be gone are looked at by a task of the device.
// Threads: any.
class DeviceState {
 public:
  // `name`: "GPU 0 (NVIDIA H100)"
  static absl::StatusOr<std::unique_ptr<DeviceState>> Create(World* world, int ordinal, std::string name);
  // REQUIRES: its streams are gone.
  ~DeviceState();

  World* world() const { return world_; }
  int ordinal() const { return ordinal_; }
  const std::string& name() const { return name_; }
  const Ref<CudaEventPool>& events() const { return events_; }
  const Ref<TimedEventPool>& timed_events() const { return timed_events_; }
  DeviceClock& clock() const { return *clock_; }

  // Makes this GPU the calling thread's.
  absl::Status Enter() const;

  void Add(CudaStream* stream);
  void Remove(CudaStream* stream);
  // Some stream is to be looked at.
  void Ring() { bell_.Ring(world_->Now()); }

 private:
  DeviceState(World* world, int ordinal, std::string name);
  void Run();

  World* const world_;
  const int ordinal_;
  const std::string name_;
  const Ref<SignalPool> signals_ = MakeRef<SignalPool>();
  const Ref<CudaEventPool> events_ = MakeRef<CudaEventPool>();
  const Ref<TimedEventPool> timed_events_ = MakeRef<TimedEventPool>();
  std::unique_ptr<DeviceClock> clock_;
  Doorbell bell_{signals_};
  std::mutex mutex_;
  bool closing_ = false;
  std::vector<CudaStream*> streams_;
  EventRef task_;
};

// That of a device made by NewCudaDevice(); null of any other.
DeviceState* StateOf(Device* device);

}  // namespace sluice::cuda
