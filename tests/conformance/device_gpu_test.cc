// The Device suite on this machine's GPU. Without one it is skipped, and says why.
#include <cstdio>

#include "kernels/cuda/factory.h"
#include "tests/conformance/device_conformance.h"

namespace sluice {
namespace {

DeviceFactory Gpu() {
  return {"Gpu0", [](int64_t memory_limit_bytes) {
            DeviceUnderTest result;
            result.world = NewRealWorld();
            auto device = cuda::NewCudaDevice(result.world.get(), {.memory_limit_bytes = memory_limit_bytes});
            EXPECT_TRUE(device.ok()) << device.status();
            result.device = *std::move(device);
            return result;
          }};
}

INSTANTIATE_TEST_SUITE_P(Cuda, DeviceConformance, testing::Values(Gpu()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (const auto devices = sluice::cuda::FindCudaDevices(); !devices.ok()) {
    std::printf("SKIPPED: no CUDA device: %s\n", std::string(devices.status().message()).c_str());
    return 0;
  }
  return RUN_ALL_TESTS();
}
