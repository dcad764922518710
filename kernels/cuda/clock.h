// When something happened on a GPU, in the World's time. CUDA tells the milliseconds between two events, as a float,
// exact to a microsecond only over seconds: so there is a base event, renewed now and then, on a stream that has
// nothing else to do, whose World time is known.
#pragma once

#include <memory>
#include <mutex>
#include <utility>

#include "absl/status/statusor.h"
#include "base/pool.h"
#include "base/world.h"
#include "cuda_runtime.h"

namespace sluice::cuda {

// A CUDA event of the device that was the calling thread's when it was made.
class TimedEvent : public RefCounted {
 public:
  TimedEvent();
  ~TimedEvent() override;
  cudaError_t Record(cudaStream_t stream, Nanoseconds now);
  cudaEvent_t get() const { return event_; }
  Nanoseconds issued_at() const { return issued_at_; }

 protected:
  void Reset() {}

 private:
  cudaEvent_t event_ = nullptr;
  Nanoseconds issued_at_ = 0;
};
using TimedEventPool = ObjectPool<TimedEvent>;

// Threads: any.
class DeviceClock {
 public:
  // REQUIRES: the calling thread's device is the clock's.
  static absl::StatusOr<std::unique_ptr<DeviceClock>> Create(Ref<TimedEventPool> events);
  ~DeviceClock();

  // The base for events recorded now. REQUIRES: the calling thread's device is the clock's.
  absl::StatusOr<Ref<TimedEvent>> Base(Nanoseconds now);

 private:
  explicit DeviceClock(Ref<TimedEventPool> events) : events_(std::move(events)) {}

  const Ref<TimedEventPool> events_;
  cudaStream_t stream_ = nullptr;
  std::mutex mutex_;
  Ref<TimedEvent> base_;
};

// When `event` happened, both having ended; never before it was issued. NotReady: the base has not happened yet.
cudaError_t TimeOf(const TimedEvent& base, const TimedEvent& event, Nanoseconds* time);

}  // namespace sluice::cuda
