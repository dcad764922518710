// A launch that runs at once, with every thread and without a machine, on buffers that the test owns. For tests of the
// simulator itself.
#pragma once

#include <cstring>
#include <source_location>
#include <vector>

#include "tests/gpu_sim/barrier_power.h"
#include "tests/gpu_sim/include/cuda_runtime.h"
#include "tests/gpu_sim/include/gpu_sim_launch.h"
#include "tests/gpu_sim/kernel_run.h"
#include "tests/gpu_sim/memory.h"

namespace gpu_sim {

// Device memory with the values of a vector, or without any.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(int64_t count)
      : count_(count), data_(AllocateBytes(0, count * sizeof(T), std::source_location::current())) {}
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(static_cast<int64_t>(values.size())) {
    std::memcpy(StorageOf(data_), values.data(), count_ * sizeof(T));
    MarkWritten(region());
  }
  ~DeviceArray() { Free(); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  void Free() {
    if (data_ != nullptr) FreeBytes(data_, std::source_location::current());
    data_ = nullptr;
  }
  T* data() const { return reinterpret_cast<T*>(data_); }
  std::vector<T> values() const {
    std::vector<T> values(count_);
    std::memcpy(values.data(), StorageOf(data_), count_ * sizeof(T));
    return values;
  }
  LaunchRegion region() const { return {data_, count_ * static_cast<int64_t>(sizeof(T)), 1, 0}; }

 private:
  const int64_t count_;
  std::byte* data_;
};

struct ThreadLaunch {
  dim3 grid = 1, block = 1;
  int shared_bytes = 0;
  std::vector<LaunchRegion> reads, writes;
  RunOptions options;
  BarrierPower* power = nullptr;  // null: once, with all barriers
};

template <class Args>
__attribute__((no_sanitize("thread"))) void CallWithArgs(void (*kernel)(), const void* args) {
  reinterpret_cast<void (*)(Args)>(kernel)(*static_cast<const Args*>(args));
}

template <class Args>
RunResult RunThreads(void (*kernel)(Args), const ThreadLaunch& launch, const Args& args) {
  KernelLaunch full{.name = "TestKernel",
                    .kernel = reinterpret_cast<void (*)()>(kernel),
                    .call = CallWithArgs<Args>,
                    .arguments = std::vector<std::byte>(sizeof(Args)),
                    .grid = launch.grid,
                    .block = launch.block,
                    .shared_bytes = launch.shared_bytes,
                    .stream = nullptr,
                    .reads = launch.reads,
                    .writes = launch.writes,
                    .site = std::source_location::current()};
  std::memcpy(full.arguments.data(), &args, sizeof(Args));
  return launch.power != nullptr ? launch.power->Run(full, launch.options) : RunEveryThread(full, launch.options);
}

}  // namespace gpu_sim
