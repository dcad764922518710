// The Device suite on the simulated GPU: streams run in any order that CUDA permits, and what a device does wrong is
// reported.
#include "kernels/cuda/factory.h"
#include "tests/conformance/device_conformance.h"
#include "tests/gpu_sim/machine.h"
#include "tests/sim/sim_world.h"

namespace sluice {
namespace {

class CheckedMachine {
 public:
  CheckedMachine(World* world, uint64_t seed) : machine_({.world = world, .seed = seed}) {}
  ~CheckedMachine() { EXPECT_EQ(machine_.ReportText(), ""); }

 private:
  gpu_sim::Machine machine_;
};

DeviceFactory Simulated(uint64_t seed) {
  return {"Seed" + std::to_string(seed), [seed](int64_t memory_limit_bytes) {
            DeviceUnderTest result;
            result.world = std::make_unique<SimWorld>(SimWorldOptions{.seed = seed});
            result.machine = std::make_shared<CheckedMachine>(result.world.get(), seed);
            auto device = cuda::NewCudaDevice(result.world.get(), {.memory_limit_bytes = memory_limit_bytes});
            EXPECT_TRUE(device.ok()) << device.status();
            result.device = *std::move(device);
            return result;
          }};
}

INSTANTIATE_TEST_SUITE_P(GpuSim, DeviceConformance,
                         testing::Values(Simulated(1), Simulated(2), Simulated(3), Simulated(4), Simulated(5)),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace sluice
