// What a GPU's device does when calls fail, and what it never does while it trains.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/relay_event.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cuda/factory.h"
#include "kernels/operations.h"
#include "tests/gpu_sim/machine.h"
#include "tests/sim/sim_world.h"

namespace sluice {
namespace {

using gpu_sim::Fault;
using ::testing::AllOf;
using ::testing::HasSubstr;

struct Gpu {
  explicit Gpu(std::vector<Fault> faults = {})
      : machine({.world = &world, .faults = std::move(faults)}), device(cuda::NewCudaDevice(&world, {})) {
    EXPECT_TRUE(device.ok()) << device.status();
  }
  Device& operator*() { return **device; }
  // What comes of filling a tensor.
  absl::Status Fill() {
    auto buffer = (*device)->Allocate(400, "activations");
    if (!buffer.ok()) return buffer.status();
    auto stream = (*device)->NewStream("compute0");
    (*device)->operations().Fill(*stream, {buffer->data(), DType::kF32, {100}}, 1);
    return world.Wait(stream->Record());
  }

  SimWorld world{{}};
  gpu_sim::Machine machine;
  absl::StatusOr<std::unique_ptr<Device>> device;
};

TEST(CudaDevice, NoMemoryNamesWhatItWasForAndARemedy) {
  const absl::Status status = Gpu({{.call = "cudaMalloc", .error = cudaErrorMemoryAllocation}}).Fill();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("cudaMalloc"), HasSubstr("activations"), HasSubstr("400 bytes"), HasSubstr("GPU 0"),
                    HasSubstr("nvidia-smi")));
}

TEST(CudaDevice, AKernelThatCanNotBeLaunchedIsItsStreamsError) {
  const absl::Status status = Gpu({{.call = "Fill", .error = cudaErrorLaunchOutOfResources}}).Fill();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("Fill on stream compute0 of GPU 0"), HasSubstr("cudaErrorLaunchOutOfResources")));
}

TEST(CudaDevice, AKernelThatFailsEndsTheEventsBehindIt) {
  const absl::Status status =
      Gpu({{.call = "Fill", .error = cudaErrorIllegalAddress, .where = Fault::Where::kExecution}}).Fill();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("stream compute0"), HasSubstr("compute-sanitizer")));
}

TEST(CudaDevice, AStreamThatCanNotBeMadeHasThatAsItsError) {
  // The first one is the memory's.
  const absl::Status status =
      Gpu({{.call = "cudaStreamCreateWithPriority", .at = 1, .error = cudaErrorMemoryAllocation}}).Fill();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("stream compute0"));
}

// Work between devices, copies of the host, held streams: the second round makes nothing new.
TEST(CudaDevice, NothingIsMadeOrSynchronisedAfterTheFirstRounds) {
  Gpu gpu;
  {
    auto buffer = (*gpu).Allocate(400, "test");
    ASSERT_TRUE(buffer.ok());
    const TensorView view{buffer->data(), DType::kF32, {100}};
    auto first = (*gpu).NewStream("first"), second = (*gpu).NewStream("second");
    const auto relays = MakeRef<RelayPool>();
    std::vector<float> host(100);
    const auto round = [&] {
      const Ref<RelayEvent> relay = relays->Take();
      second->Wait(relay);
      (*gpu).operations().Fill(*second, view, 2);
      second->CopyToHost(view, host.data());
      const EventRef filled = second->Record();
      first->CopyToDevice(host.data(), view);
      relay->Bind(first->Record());
      EXPECT_TRUE(gpu.world.Wait(filled).ok());
      first->Wait(filled);
    };
    for (int i = 0; i < 3; ++i) round();
    const gpu_sim::Counters before = gpu.machine.counters();
    for (int i = 0; i < 20; ++i) round();
    const gpu_sim::Counters after = gpu.machine.counters();
    EXPECT_EQ(after.device_allocations, before.device_allocations);
    EXPECT_EQ(after.host_allocations, before.host_allocations);
    EXPECT_EQ(after.created, before.created);
    EXPECT_EQ(after.synchronisations, before.synchronisations);
    EXPECT_GT(after.launches, before.launches);
    EXPECT_EQ(host, std::vector<float>(100, 2.0f));
  }
  EXPECT_EQ(gpu.machine.ReportText(), "");
}

// More commands than a held stream has room for: the issuing thread waits, and nothing is lost.
TEST(CudaDevice, AHeldStreamTakesAnyNumberOfCommands) {
  Gpu gpu;
  auto buffer = (*gpu).Allocate(4, "test");
  ASSERT_TRUE(buffer.ok());
  const TensorView view{buffer->data(), DType::kF32, {1}};
  auto stream = (*gpu).NewStream("compute");
  const Ref<Signal> gate = MakeRef<Signal>();
  const EventRef opened = gpu.world.Spawn({.name = "gate"}, [&] {
    gpu.world.SleepUntil(gpu.world.Now() + kMillisecond);
    gate->Set(absl::OkStatus(), gpu.world.Now());
  });
  stream->Wait(gate);
  for (int i = 0; i < 3000; ++i) (*gpu).operations().Fill(*stream, view, static_cast<float>(i));
  float last = 0;
  stream->CopyToHost(view, &last);
  EXPECT_TRUE(gpu.world.Wait(stream->Record()).ok());
  EXPECT_EQ(last, 2999);
  EXPECT_TRUE(gpu.world.Wait(opened).ok());
}

}  // namespace
}  // namespace sluice
