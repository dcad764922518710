#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/gpu_sim/driver.h"

namespace gpu_sim {
namespace {

// Deep enough to tell apart who waits by way of a shared function.
constexpr int kWaitStackDepth = 5;

// Handles are numbers that no pointer has.
constexpr uintptr_t kStreamHandle = 0x5EA0'0000'0000'0001;
constexpr uintptr_t kEventHandle = 0xE7E0'0000'0000'0001;
constexpr uintptr_t kHandleStep = 16;

template <class Handle>
Handle HandleOf(uintptr_t kind, size_t index) {
  return reinterpret_cast<Handle>(kind + kHandleStep * index);
}
template <class Handle>
size_t IndexOf(uintptr_t kind, Handle handle) {
  return (reinterpret_cast<uintptr_t>(handle) - kind) / kHandleStep;
}

constexpr int kLeastPriority = 0;
constexpr int kGreatestPriority = -5;

}  // namespace

cudaError_t Driver::PriorityRange(int* least, int* greatest) {
  if (least != nullptr) *least = kLeastPriority;
  if (greatest != nullptr) *greatest = kGreatestPriority;
  return cudaSuccess;
}

Driver::Stream* Driver::Find(const Caller& caller, cudaStream_t stream) {
  const std::string where = absl::StrCat(caller.name, " at ", caller.site.file_name(), ":", caller.site.line());
  if (stream == nullptr || stream == cudaStreamLegacy || stream == cudaStreamPerThread) {
    reports_.Add(ReportKind::kDefaultStream, absl::StrCat(where,
                                                          " uses a default stream, which waits for other streams of "
                                                          "the device: use a stream of its own"));
    return nullptr;
  }
  const size_t index = IndexOf(kStreamHandle, stream);
  if (index < streams_.size() && !streams_[index].destroyed) return &streams_[index];
  reports_.Add(ReportKind::kHandle,
               absl::StrCat(where, " uses a stream that ", index < streams_.size() ? "was destroyed" : "never was"));
  return nullptr;
}

Driver::Event* Driver::Find(const Caller& caller, cudaEvent_t event) {
  const size_t index = IndexOf(kEventHandle, event);
  if (index < events_.size() && !events_[index].destroyed) return &events_[index];
  reports_.Add(ReportKind::kHandle,
               absl::StrCat(caller.name, " at ", caller.site.file_name(), ":", caller.site.line(),
                            " uses an event that ", index < events_.size() ? "was destroyed" : "never was"));
  return nullptr;
}

cudaError_t Driver::WaitFor(const CompletionRef& completion, const Clock& clock) {
  const cudaError_t error = completion != nullptr ? execution_->WaitFor(completion) : cudaSuccess;
  std::lock_guard lock(mutex_);
  if (error == cudaSuccess) HostSaw(clock);
  return error;
}

cudaError_t Driver::NewStream(cudaStream_t* stream, unsigned flags, int priority) {
  if (stream == nullptr || (flags & ~static_cast<unsigned>(cudaStreamNonBlocking)) != 0) return cudaErrorInvalidValue;
  std::lock_guard lock(mutex_);
  const int number = execution_->NewStream();
  order_.NewStream();
  streams_.push_back({.device = CurrentDevice(),
                      .priority = std::clamp(priority, kGreatestPriority, kLeastPriority),
                      .number = number});
  ++counters_.created;
  *stream = HandleOf<cudaStream_t>(kStreamHandle, streams_.size() - 1);
  return cudaSuccess;
}

cudaError_t Driver::DestroyStream(const Caller& caller, cudaStream_t stream) {
  std::lock_guard lock(mutex_);
  Stream* found = Find(caller, stream);
  if (found == nullptr) return cudaErrorInvalidResourceHandle;
  found->destroyed = true;  // what it has been given still runs
  return cudaSuccess;
}

cudaError_t Driver::StreamPriority(const Caller& caller, cudaStream_t stream, int* priority) {
  std::lock_guard lock(mutex_);
  const Stream* found = Find(caller, stream);
  if (found == nullptr) return cudaErrorInvalidResourceHandle;
  *priority = found->priority;
  return cudaSuccess;
}

cudaError_t Driver::QueryStream(const Caller& caller, cudaStream_t stream) {
  std::lock_guard lock(mutex_);
  const Stream* found = Find(caller, stream);
  if (found == nullptr) return cudaErrorInvalidResourceHandle;
  const CompletionRef end = execution_->EndOf(found->number);
  if (end != nullptr && !execution_->IsDone(*end)) return cudaErrorNotReady;
  if (end != nullptr && end->error != cudaSuccess) return end->error;
  HostSaw(order_.Of(AgentOf(*found)));
  return cudaSuccess;
}

cudaError_t Driver::SynchronizeStream(const Caller& caller, cudaStream_t stream) {
  std::unique_lock lock(mutex_);
  const Stream* found = Find(caller, stream);
  if (found == nullptr) return cudaErrorInvalidResourceHandle;
  ++counters_.synchronisations;
  const CompletionRef end = execution_->EndOf(found->number);
  const Clock clock = order_.Of(AgentOf(*found));
  lock.unlock();
  return WaitFor(end, clock);
}

cudaError_t Driver::NewEvent(cudaEvent_t* event, unsigned flags) {
  constexpr unsigned kKnown = cudaEventBlockingSync | cudaEventDisableTiming;
  if (event == nullptr || (flags & ~kKnown) != 0) return cudaErrorInvalidValue;
  std::lock_guard lock(mutex_);
  events_.push_back({.device = CurrentDevice(), .timed = (flags & cudaEventDisableTiming) == 0});
  ++counters_.created;
  *event = HandleOf<cudaEvent_t>(kEventHandle, events_.size() - 1);
  return cudaSuccess;
}

cudaError_t Driver::DestroyEvent(const Caller& caller, cudaEvent_t event) {
  std::lock_guard lock(mutex_);
  Event* found = Find(caller, event);
  if (found == nullptr) return cudaErrorInvalidResourceHandle;
  *found = {.device = found->device, .destroyed = true};  // who waits for its record has that
  return cudaSuccess;
}

cudaError_t Driver::Record(const Caller& caller, cudaEvent_t event, cudaStream_t stream) {
  std::lock_guard lock(mutex_);
  Event* found = Find(caller, event);
  Stream* on = Find(caller, stream);
  if (found == nullptr || on == nullptr || found->device != on->device) return cudaErrorInvalidResourceHandle;
  found->recorded = std::make_shared<Completion>();
  Issue(caller, on, {}, {}, {.completion = found->recorded});
  found->clock = order_.Of(AgentOf(*on));
  return cudaSuccess;
}

cudaError_t Driver::Wait(const Caller& caller, cudaStream_t stream, cudaEvent_t event) {
  std::lock_guard lock(mutex_);
  Event* found = Find(caller, event);
  Stream* on = Find(caller, stream);
  if (found == nullptr || on == nullptr) return cudaErrorInvalidResourceHandle;
  const uint32_t call = log_.Add(caller.name, caller.site, on->device, on->number,
                                 {.return_address = caller.return_address, .depth = kWaitStackDepth});
  const std::string site = log_.Site(call);
  ++wait_sites_[site];
  ++counters_.waits;
  if (site == options_.wait_left_out) return cudaSuccess;
  if (found->recorded == nullptr) {
    reports_.Add(ReportKind::kNeverRecorded, absl::StrCat(log_.Describe(call),
                                                          " waits for an event that was never recorded, "
                                                          "so for nothing"));
    return cudaSuccess;
  }
  order_.Wait(AgentOf(*on), found->clock);
  Issue(caller, on, {}, {}, {.waits_for = found->recorded});
  return cudaSuccess;
}

cudaError_t Driver::QueryEvent(const Caller& caller, cudaEvent_t event) {
  std::lock_guard lock(mutex_);
  const Event* found = Find(caller, event);
  if (found == nullptr) return cudaErrorInvalidResourceHandle;
  if (found->recorded == nullptr) return cudaSuccess;
  if (!execution_->IsDone(*found->recorded)) return cudaErrorNotReady;
  if (found->recorded->error == cudaSuccess) HostSaw(found->clock);
  return found->recorded->error;
}

cudaError_t Driver::SynchronizeEvent(const Caller& caller, cudaEvent_t event) {
  std::unique_lock lock(mutex_);
  const Event* found = Find(caller, event);
  if (found == nullptr) return cudaErrorInvalidResourceHandle;
  if (found->recorded == nullptr) return cudaSuccess;
  ++counters_.synchronisations;
  const CompletionRef recorded = found->recorded;
  const Clock clock = found->clock;
  lock.unlock();
  return WaitFor(recorded, clock);
}

cudaError_t Driver::ElapsedTime(const Caller& caller, float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  std::lock_guard lock(mutex_);
  const Event* first = Find(caller, start);
  const Event* last = Find(caller, end);
  if (first == nullptr || last == nullptr || first->device != last->device) return cudaErrorInvalidResourceHandle;
  for (const Event* event : {first, last}) {
    if (event->recorded == nullptr || !event->timed) return cudaErrorInvalidResourceHandle;
  }
  for (const Event* event : {first, last}) {
    if (!execution_->IsDone(*event->recorded)) return cudaErrorNotReady;
    if (event->recorded->error != cudaSuccess) return event->recorded->error;
  }
  *milliseconds = static_cast<float>(static_cast<double>(last->recorded->ended - first->recorded->ended) * 1e-6);
  return cudaSuccess;
}

}  // namespace gpu_sim
