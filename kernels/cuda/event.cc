#include "kernels/cuda/event.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "kernels/cuda/errors.h"

namespace sluice::cuda {

absl::Status CudaEvent::Issue(IssueContext context) {
  std::lock_guard lock(mutex_);
  context_ = std::move(context);
  end_ = context_.timed_events->Take();
  const Nanoseconds now = context_.world->Now();
  if (const cudaError_t error = end_->Record(context_.stream, now); error != cudaSuccess) {
    SetDone(CudaError(error, "cudaEventRecord", *context_.where), now, now);
  } else {
    state_.store(State::kIssued, std::memory_order_release);
  }
  WakeAll();
  return status_;
}

void CudaEvent::Fail(const absl::Status& status, Nanoseconds now) {
  std::lock_guard lock(mutex_);
  SetDone(status, now, now);
  WakeAll();
}

void CudaEvent::WakeAll() {
  for (Waker* waker : wakers_) waker->Wake();
  wakers_.clear();
}

bool CudaEvent::Done() const {
  const State state = state_.load(std::memory_order_acquire);
  if (state != State::kIssued) return state == State::kDone;
  std::lock_guard lock(mutex_);
  if (state_.load(std::memory_order_relaxed) == State::kIssued) Finish();
  return state_.load(std::memory_order_relaxed) == State::kDone;
}

void CudaEvent::Finish() const {
  cudaError_t error = cudaEventQuery(end_->get());
  Nanoseconds began = 0, ended = 0;
  if (error == cudaSuccess) error = TimeOf(*context_.base, *end_, &ended);
  if (error == cudaSuccess && context_.began) error = TimeOf(*context_.base, *context_.began, &began);
  if (error == cudaErrorNotReady) {
    IgnoreError(cudaGetLastError());  // it counts as one, and would be taken for another call's
    return;
  }
  const Nanoseconds now = context_.world->Now();
  if (error != cudaSuccess) return SetDone(CudaError(error, "cudaEventQuery", *context_.where), now, now);
  ended = std::min(ended, now);
  began = context_.began ? std::min(began, ended) : ended;
  context_.staging->Settle(context_.staged);
  SetDone(absl::OkStatus(), began, ended);
}

void CudaEvent::SetDone(absl::Status status, Nanoseconds began, Nanoseconds ended) const {
  status_ = std::move(status);
  began_ = began;
  ended_ = ended;
  context_.staging = nullptr;
  context_.began = nullptr;
  state_.store(State::kDone, std::memory_order_release);
}

absl::Status CudaEvent::status() const {
  CHECK(state_.load(std::memory_order_acquire) == State::kDone) << "status of a pending event";
  return status_;
}

bool CudaEvent::Watch(Waker* waker) {
  std::lock_guard lock(mutex_);
  if (state_.load(std::memory_order_relaxed) != State::kHeld) return false;
  wakers_.push_back(waker);
  return true;
}

void CudaEvent::Unwatch(Waker* waker) {
  std::lock_guard lock(mutex_);
  const auto found = std::find(wakers_.begin(), wakers_.end(), waker);
  if (found != wakers_.end()) wakers_.erase(found);
}

void CudaEvent::Reset() {
  std::lock_guard lock(mutex_);
  CHECK(wakers_.empty()) << "an event went back to its pool with " << wakers_.size() << " watchers";
  context_ = {};
  end_ = nullptr;
  status_ = absl::OkStatus();
  state_.store(State::kHeld, std::memory_order_relaxed);
}

}  // namespace sluice::cuda
