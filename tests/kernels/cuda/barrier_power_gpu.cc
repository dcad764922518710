// Every barrier of every kernel is left out once, in the launches of all tests: somebody must miss it.
#include "gmock/gmock.h"
#include "tests/gpu_sim/barrier_power.h"
#include "tests/kernels/cuda/simulated_gpu.h"

namespace sluice::cuda {
namespace {

gpu_sim::BarrierPower& Power() {
  static auto* power = new gpu_sim::BarrierPower;
  return *power;
}

class EachIsMissed : public testing::Environment {
 public:
  void TearDown() override {
    EXPECT_GT(Power().barriers(), 0);
    EXPECT_THAT(Power().never_missed(), testing::IsEmpty()) << "of " << Power().barriers() << " barriers: redundant?";
  }
};
[[maybe_unused]] testing::Environment* const environment = testing::AddGlobalTestEnvironment(new EachIsMissed);

}  // namespace

std::unique_ptr<TestGpu> NewTestGpu() {
  return std::make_unique<SimulatedGpu>(
      gpu_sim::MachineOptions{.fidelity = gpu_sim::Fidelity::kEveryThread, .barrier_power = &Power()});
}

}  // namespace sluice::cuda
