// How long work on a stream takes, for choices that are measured before step 1. Waits for the stream.
#pragma once

#include <algorithm>
#include <functional>
#include <limits>

#include "cuda_runtime.h"

namespace sluice::cuda {

class Stopwatch {
 public:
  explicit Stopwatch(cudaStream_t stream) : stream_(stream) {
    error_ = cudaEventCreate(&begin_);
    if (error_ == cudaSuccess) error_ = cudaEventCreate(&end_);
  }
  ~Stopwatch() {
    if (begin_ != nullptr) (void)cudaEventDestroy(begin_);
    if (end_ != nullptr) (void)cudaEventDestroy(end_);
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

  // The best of `repeats` runs after a first one, in milliseconds; nothing is taken for an error's time.
  cudaError_t Time(int repeats, const std::function<cudaError_t()>& work, float* milliseconds) {
    *milliseconds = std::numeric_limits<float>::max();
    if (error_ == cudaSuccess) error_ = work();
    for (int i = 0; i < repeats && error_ == cudaSuccess; ++i) {
      float once = 0;
      error_ = cudaEventRecord(begin_, stream_);
      if (error_ == cudaSuccess) error_ = work();
      if (error_ == cudaSuccess) error_ = cudaEventRecord(end_, stream_);
      if (error_ == cudaSuccess) error_ = cudaEventSynchronize(end_);
      if (error_ == cudaSuccess) error_ = cudaEventElapsedTime(&once, begin_, end_);
      if (error_ == cudaSuccess) *milliseconds = std::min(*milliseconds, once);
    }
    return error_;
  }

 private:
  const cudaStream_t stream_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  cudaError_t error_ = cudaSuccess;  // of the first call that failed
};

}  // namespace sluice::cuda
