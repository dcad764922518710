#include "cuda_runtime.h"
#include "gtest/gtest.h"
#include "tests/kernels/cuda/test_gpu.h"

namespace sluice::cuda {
namespace {

class RealGpu final : public TestGpu {
 public:
  std::string Faults() override { return {}; }
};

// Without a GPU every test is skipped, and says so.
class NeedsGpu final : public testing::Environment {
 public:
  void SetUp() override {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) GTEST_SKIP() << "no CUDA device";
  }
};
[[maybe_unused]] testing::Environment* const environment = testing::AddGlobalTestEnvironment(new NeedsGpu);

}  // namespace

std::unique_ptr<TestGpu> NewTestGpu() { return std::make_unique<RealGpu>(); }

}  // namespace sluice::cuda
