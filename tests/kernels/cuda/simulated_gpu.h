// A simulated GPU for tests of kernels, in virtual time.
#pragma once

#include "tests/gpu_sim/machine.h"
#include "tests/kernels/cuda/test_gpu.h"
#include "tests/sim/sim_world.h"

namespace sluice::cuda {

class SimulatedGpu final : public TestGpu {
 public:
  explicit SimulatedGpu(gpu_sim::Fidelity fidelity, gpu_sim::BarrierPower* power = nullptr)
      : world_(SimWorldOptions{}), machine_({.world = &world_, .fidelity = fidelity, .barrier_power = power}) {}
  std::string Faults() override { return machine_.ReportText(); }

 private:
  SimWorld world_;
  gpu_sim::Machine machine_;
};

}  // namespace sluice::cuda
