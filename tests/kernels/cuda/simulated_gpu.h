// A simulated GPU for tests of kernels, in virtual time.
#pragma once

#include <utility>

#include "tests/gpu_sim/machine.h"
#include "tests/kernels/cuda/test_gpu.h"
#include "tests/sim/sim_world.h"

namespace sluice::cuda {

class SimulatedGpu final : public TestGpu {
 public:
  // In a world of its own.
  explicit SimulatedGpu(gpu_sim::MachineOptions options)
      : world_(SimWorldOptions{}), machine_(In(&world_, std::move(options))) {}
  std::string Faults() override { return machine_.ReportText(); }

 private:
  static gpu_sim::MachineOptions In(World* world, gpu_sim::MachineOptions options) {
    options.world = world;
    return options;
  }

  SimWorld world_;
  gpu_sim::Machine machine_;
};

}  // namespace sluice::cuda
