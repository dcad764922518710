#include "kernels/cuda/clock.h"

#include <algorithm>
#include <utility>

#include "kernels/cuda/errors.h"

namespace sluice::cuda {
namespace {

constexpr Nanoseconds kRenewal = 2 * kSecond;

}  // namespace

// What can't be made now is refused when it is recorded.
TimedEvent::TimedEvent() { IgnoreError(cudaEventCreateWithFlags(&event_, cudaEventDefault)); }

TimedEvent::~TimedEvent() {
  if (event_ != nullptr) IgnoreError(cudaEventDestroy(event_));
}

cudaError_t TimedEvent::Record(cudaStream_t stream, Nanoseconds now) {
  issued_at_ = now;
  return cudaEventRecord(event_, stream);
}

absl::StatusOr<std::unique_ptr<DeviceClock>> DeviceClock::Create(Ref<TimedEventPool> events) {
  auto clock = std::unique_ptr<DeviceClock>(new DeviceClock(std::move(events)));
  const cudaError_t error = cudaStreamCreateWithFlags(&clock->stream_, cudaStreamNonBlocking);
  if (error != cudaSuccess) return CudaError(error, "cudaStreamCreateWithFlags", "the clock's stream");
  return clock;
}

DeviceClock::~DeviceClock() {
  base_ = nullptr;
  if (stream_ != nullptr) IgnoreError(cudaStreamDestroy(stream_));
}

absl::StatusOr<Ref<TimedEvent>> DeviceClock::Base(Nanoseconds now) {
  std::lock_guard lock(mutex_);
  if (base_ && now - base_->issued_at() < kRenewal) return base_;
  Ref<TimedEvent> base = events_->Take();
  const cudaError_t error = base->Record(stream_, now);
  if (error != cudaSuccess) return CudaError(error, "cudaEventRecord", "the clock's stream");
  base_ = base;
  return base;
}

cudaError_t TimeOf(const TimedEvent& base, const TimedEvent& event, Nanoseconds* time) {
  float milliseconds = 0;
  const cudaError_t error = cudaEventElapsedTime(&milliseconds, base.get(), event.get());
  if (error != cudaSuccess) return error;
  const auto elapsed = static_cast<Nanoseconds>(static_cast<double>(milliseconds) * kMillisecond);
  *time = std::max(base.issued_at() + elapsed, event.issued_at());
  return cudaSuccess;
}

}  // namespace sluice::cuda
