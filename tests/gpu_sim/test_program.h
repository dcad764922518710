// Small programs for the simulated GPU's own tests: a machine in virtual time, and launches that touch given bytes.
#pragma once

#include <cuda_runtime.h>
#include <gpu_sim_launch.h>

#include <source_location>
#include <utility>
#include <vector>

#include "base/check.h"
#include "tests/gpu_sim/machine.h"
#include "tests/sim/sim_world.h"

namespace gpu_sim {

struct TestMachine {
  explicit TestMachine(MachineOptions options = {})
      : world({.seed = options.seed}), machine(WithWorld(std::move(options))) {}
  MachineOptions WithWorld(MachineOptions options) {
    options.world = &world;
    return options;
  }
  int64_t Times(ReportKind kind) const {
    int64_t times = 0;
    for (const Report& report : machine.reports()) times += report.kind == kind ? report.times : 0;
    return times;
  }

  sluice::SimWorld world;
  Machine machine;
};

inline void MustSucceed(cudaError_t error) { CHECK_EQ(error, cudaSuccess) << cudaGetErrorString(error); }

inline cudaStream_t NewStream(int device = 0) {
  cudaStream_t stream;
  MustSucceed(cudaSetDevice(device));
  MustSucceed(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return stream;
}

inline cudaEvent_t NewEvent(int device = 0) {
  cudaEvent_t event;
  MustSucceed(cudaSetDevice(device));
  MustSucceed(cudaEventCreate(&event));
  return event;
}

inline std::byte* NewMemory(int64_t bytes, int device = 0) {
  void* data;
  MustSucceed(cudaSetDevice(device));
  MustSucceed(cudaMalloc(&data, bytes));
  return static_cast<std::byte*>(data);
}

inline std::byte* NewHostMemory(int64_t bytes) {
  void* data;
  MustSucceed(cudaHostAlloc(&data, bytes, cudaHostAllocDefault));
  return static_cast<std::byte*>(data);
}

inline LaunchRegion Bytes(const std::byte* data, int64_t bytes) { return {data, bytes, 1, 0}; }

// A launch of no kernel: it claims to read and write what it is given, and does what `effect` does.
inline cudaError_t Touch(
    const char* name, cudaStream_t stream, std::vector<LaunchRegion> reads, std::vector<LaunchRegion> writes,
    std::function<cudaError_t()> effect = [] { return cudaSuccess; },
    std::source_location site = std::source_location::current()) {
  return Launch({.name = name,
                 .grid = {1},
                 .block = {1},
                 .shared_bytes = 0,
                 .stream = stream,
                 .reads = std::move(reads),
                 .writes = std::move(writes),
                 .site = site,
                 .library_call = std::move(effect)});
}

}  // namespace gpu_sim
