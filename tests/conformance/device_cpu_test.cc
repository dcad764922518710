// The Device suite on the CPU, with teams of one and of several threads.
#include "kernels/cpu/cpu_device.h"
#include "tests/conformance/device_conformance.h"
#include "tests/sim/sim_world.h"

namespace sluice {
namespace {

DeviceFactory Cpu(int threads) {
  return {"Threads" + std::to_string(threads), [threads](int64_t memory_limit_bytes) {
            DeviceUnderTest result;
            result.world = NewRealWorld();
            result.device =
                cpu::NewCpuDevice(result.world.get(), {.threads = threads, .memory_limit_bytes = memory_limit_bytes});
            return result;
          }};
}

// In virtual time, where one task runs at a time.
DeviceFactory Simulated(uint64_t seed) {
  return {"Simulated" + std::to_string(seed), [seed](int64_t memory_limit_bytes) {
            DeviceUnderTest result;
            result.world = std::make_unique<SimWorld>(SimWorldOptions{.seed = seed});
            result.device = cpu::NewCpuDevice(result.world.get(), {.memory_limit_bytes = memory_limit_bytes});
            return result;
          }};
}

INSTANTIATE_TEST_SUITE_P(Cpu, DeviceConformance, testing::Values(Cpu(1), Cpu(3), Simulated(1), Simulated(2)),
                         [](const auto& info) { return info.param.name; });

TEST(CpuDevice, PoisonsFreshMemoryOnRequest) {
  auto world = NewRealWorld();
  auto device = cpu::NewCpuDevice(world.get(), {.poison_fresh_memory = true});
  auto buffer = device->Allocate(40, "test");
  ASSERT_TRUE(buffer.ok());
  const float* values = reinterpret_cast<const float*>(buffer->data());
  for (int i = 0; i < 10; ++i) EXPECT_NE(values[i], values[i]);
}

TEST(CpuDevice, RefusesWhatTheSystemRefuses) {
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "a sanitizer's allocator ends the program where the system's returns null";
#endif
  auto world = NewRealWorld();
  auto device = cpu::NewCpuDevice(world.get(), {});
  const auto buffer = device->Allocate(int64_t{1} << 60, "far too much");
  EXPECT_EQ(buffer.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(device->memory().bytes, 0);
}

}  // namespace
}  // namespace sluice
