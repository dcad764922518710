#include "gtest/gtest.h"
#include "tests/gpu_sim/bodies.h"
#include "tests/kernels/cuda/simulated_gpu.h"

namespace sluice::cuda {
namespace {

// Without a body every thread would run, which whole jobs have no time for.
gpu_sim::Nanoseconds TimeWithBody(const gpu_sim::KernelLaunch& launch) {
  EXPECT_TRUE(launch.library_call != nullptr || gpu_sim::FindBody(launch.name) != nullptr)
      << launch.name << " has no body in tests/gpu_sim/bodies";
  return 1000;
}

}  // namespace

std::unique_ptr<TestGpu> NewTestGpu() {
  return std::make_unique<SimulatedGpu>(
      gpu_sim::MachineOptions{.fidelity = gpu_sim::Fidelity::kBodies, .kernel_time = TimeWithBody});
}

}  // namespace sluice::cuda
