#include "cuda_runtime.h"
#include "gtest/gtest.h"
#include "tests/kernels/cuda/test_gpu.h"

namespace sluice::cuda {
namespace {

class RealGpu final : public TestGpu {
 public:
  std::string Faults() override { return {}; }
};

// Without a GPU each case is skipped, and says so. (Of cases that an Environment skips GoogleTest 1.12 says that they
// passed.)
class NeedsGpu final : public testing::EmptyTestEventListener {
 public:
  NeedsGpu() {
    int devices = 0;
    error_ = cudaGetDeviceCount(&devices);
  }
  void OnTestStart(const testing::TestInfo&) override {
    if (error_ != cudaSuccess) GTEST_SKIP() << "no GPU: " << cudaGetErrorString(error_);
  }

 private:
  cudaError_t error_;
};
[[maybe_unused]] const bool registered = [] {
  testing::UnitTest::GetInstance()->listeners().Append(new NeedsGpu);
  return true;
}();

}  // namespace

std::unique_ptr<TestGpu> NewTestGpu() { return std::make_unique<RealGpu>(); }

}  // namespace sluice::cuda
