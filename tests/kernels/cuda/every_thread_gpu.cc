#include "tests/kernels/cuda/simulated_gpu.h"

namespace sluice::cuda {

std::unique_ptr<TestGpu> NewTestGpu() {
  return std::make_unique<SimulatedGpu>(gpu_sim::MachineOptions{.fidelity = gpu_sim::Fidelity::kEveryThread});
}

}  // namespace sluice::cuda
