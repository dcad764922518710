// What the runtime's calls answer, as the real ones do; and that each kind of misuse is reported, and its correct twin
// is not.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "tests/gpu_sim/bodies.h"
#include "tests/gpu_sim/environment.h"
#include "tests/gpu_sim/test_program.h"

namespace gpu_sim {
namespace {

using testing::HasSubstr;

TEST(Device, AnswersAsDescribed) {
  TestMachine sim({.devices = 3, .memory_limit = 1 << 20});
  int count = 0, value = 0;
  EXPECT_EQ(cudaGetDeviceCount(&count), cudaSuccess);
  EXPECT_EQ(count, 3);
  cudaDeviceProp properties;
  EXPECT_EQ(cudaGetDeviceProperties(&properties, 2), cudaSuccess);
  EXPECT_THAT(properties.name, HasSubstr("H100"));
  EXPECT_EQ(properties.major, 9);
  EXPECT_EQ(properties.totalGlobalMem, size_t{1} << 20);
  EXPECT_EQ(cudaGetDeviceProperties(&properties, 3), cudaErrorInvalidDevice);
  EXPECT_EQ(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, 0), cudaSuccess);
  EXPECT_EQ(value, 132);
  EXPECT_EQ(cudaSetDevice(3), cudaErrorInvalidDevice);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidDevice);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

TEST(Device, WithoutDevicesThereIsNone) {
  TestMachine sim({.devices = 0});
  int count = 0;
  EXPECT_EQ(cudaGetDeviceCount(&count), cudaErrorNoDevice);
}

TEST(Device, PeerAccessIsAskedForOnce) {
  TestMachine sim({.devices = 2});
  int can = 0;
  EXPECT_EQ(cudaDeviceCanAccessPeer(&can, 0, 1), cudaSuccess);
  EXPECT_EQ(can, 1);
  EXPECT_EQ(cudaSetDevice(0), cudaSuccess);
  EXPECT_EQ(cudaDeviceDisablePeerAccess(1), cudaErrorPeerAccessNotEnabled);
  EXPECT_EQ(cudaDeviceEnablePeerAccess(1, 0), cudaSuccess);
  EXPECT_EQ(cudaDeviceEnablePeerAccess(1, 0), cudaErrorPeerAccessAlreadyEnabled);
  EXPECT_EQ(cudaDeviceEnablePeerAccess(0, 0), cudaErrorInvalidDevice);
}

TEST(Memory, EndsAtTheLimitOfEachDevice) {
  TestMachine sim({.devices = 2, .memory_limit = 1000});
  void *first, *second;
  EXPECT_EQ(cudaSetDevice(0), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&first, 800), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&second, 201), cudaErrorMemoryAllocation);
  EXPECT_EQ(second, nullptr);
  size_t free = 0, total = 0;
  EXPECT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  EXPECT_EQ(free, 200u);
  EXPECT_EQ(cudaSetDevice(1), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&second, 201), cudaSuccess);
  EXPECT_EQ(cudaFree(first), cudaSuccess);
  EXPECT_EQ(cudaFree(first), cudaErrorInvalidValue);
  EXPECT_EQ(cudaFreeHost(second), cudaErrorInvalidValue);
  EXPECT_EQ(cudaFree(second), cudaSuccess);
  EXPECT_EQ(sim.machine.counters().device_allocations, 3);
  EXPECT_EQ(sim.machine.counters().device_bytes, 0);
  EXPECT_EQ(sim.machine.ReportText(), "");
}

TEST(Memory, IsClosedToTheHost) {
  EXPECT_DEATH(
      {
        TestMachine sim;
        std::byte* data = NewMemory(64);
        data[3] = std::byte{1};
      },
      "host code touched device memory, byte 3 of the 64 bytes on device 0");
}

TEST(Memory, CopiesTakeBytesThereAndBack) {
  TestMachine sim({.devices = 2});
  const cudaStream_t stream = NewStream();
  std::byte* host = NewHostMemory(256);
  std::byte *first = NewMemory(256, 0), *second = NewMemory(256, 1);
  for (int i = 0; i < 128; ++i) host[i] = std::byte(i);
  EXPECT_EQ(cudaMemcpyAsync(first, host, 128, cudaMemcpyHostToDevice, stream), cudaSuccess);
  EXPECT_EQ(cudaMemcpyPeerAsync(second, 1, first, 0, 128, stream), cudaSuccess);
  EXPECT_EQ(cudaMemsetAsync(first, 7, 16, stream), cudaSuccess);
  // Four rows of 8 bytes, 16 apart, from the 32nd byte on.
  EXPECT_EQ(cudaMemcpy2DAsync(host + 128, 8, second + 32, 16, 8, 4, cudaMemcpyDefault, stream), cudaSuccess);
  EXPECT_EQ(cudaMemcpyAsync(host, first, 32, cudaMemcpyDeviceToHost, stream), cudaSuccess);
  EXPECT_EQ(cudaStreamQuery(stream), cudaErrorNotReady);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  EXPECT_EQ(cudaStreamQuery(stream), cudaSuccess);
  for (int i = 0; i < 32; ++i) {
    EXPECT_EQ(host[128 + i], std::byte(32 + i / 8 * 16 + i % 8));
    EXPECT_EQ(host[i], std::byte(i < 16 ? 7 : i));
  }
  EXPECT_EQ(sim.machine.ReportText(), "");
}

TEST(Memory, CopiesAreJudgedByTheirEnds) {
  TestMachine sim({.devices = 2});
  const cudaStream_t stream = NewStream();
  std::byte* host = NewHostMemory(64);
  std::byte* device = NewMemory(64);
  EXPECT_EQ(cudaMemcpyAsync(device, host, 64, cudaMemcpyDeviceToHost, stream), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpyAsync(device, host, 64, static_cast<cudaMemcpyKind>(9), stream), cudaErrorInvalidMemcpyDirection);
  EXPECT_EQ(cudaMemcpyPeerAsync(device, 1, device, 0, 64, stream), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpy2DAsync(device, 4, host, 8, 8, 2, cudaMemcpyDefault, stream), cudaErrorInvalidPitchValue);
  EXPECT_EQ(sim.machine.ReportText(), "");
  EXPECT_EQ(cudaMemcpyAsync(device, host, 65, cudaMemcpyHostToDevice, stream), cudaErrorInvalidValue);
  EXPECT_EQ(sim.Times(ReportKind::kRegion), 1) << sim.machine.ReportText();
}

TEST(Memory, AnAsynchronousCopyOfPageableMemoryIsReported) {
  TestMachine sim;
  const cudaStream_t stream = NewStream();
  std::byte* device = NewMemory(64);
  std::vector<std::byte> pageable(64, std::byte{5}), back(64);
  EXPECT_EQ(cudaMemcpyAsync(device, pageable.data(), 64, cudaMemcpyHostToDevice, stream), cudaSuccess);
  EXPECT_EQ(cudaMemcpyAsync(back.data(), device, 64, cudaMemcpyDeviceToHost, stream), cudaSuccess);
  EXPECT_EQ(back, pageable);  // it has waited, as the device does
  EXPECT_EQ(sim.Times(ReportKind::kPageable), 2);
  EXPECT_EQ(sim.machine.counters().synchronisations, 3);
}

TEST(Memory, FreeingWhatIsInUseIsReported) {
  for (bool waits : {true, false}) {
    TestMachine sim;
    const cudaStream_t stream = NewStream();
    std::byte* device = NewMemory(64);
    std::byte* host = NewHostMemory(64);
    EXPECT_EQ(cudaMemsetAsync(device, 1, 64, stream), cudaSuccess);
    EXPECT_EQ(cudaMemcpyAsync(host, device, 64, cudaMemcpyDeviceToHost, stream), cudaSuccess);
    if (waits) MustSucceed(cudaStreamSynchronize(stream));
    EXPECT_EQ(cudaFree(device), cudaSuccess);
    EXPECT_EQ(cudaFreeHost(host), cudaSuccess);
    EXPECT_EQ(sim.Times(ReportKind::kFreedInUse), waits ? 0 : 3) << sim.machine.ReportText();
  }
}

TEST(Stream, TheDefaultOneIsRefused) {
  TestMachine sim;
  std::byte* device = NewMemory(64);
  EXPECT_EQ(cudaMemset(device, 0, 64), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(cudaMemsetAsync(device, 0, 64), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(Touch("kernel", cudaStreamLegacy, {}, {}), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(sim.Times(ReportKind::kDefaultStream), 3);
}

TEST(Stream, IsOfOneDevice) {
  TestMachine sim({.devices = 2});
  const cudaStream_t stream = NewStream(0);
  const cudaEvent_t event = NewEvent(1);
  EXPECT_EQ(cudaSetDevice(1), cudaSuccess);
  EXPECT_EQ(Touch("kernel", stream, {}, {}), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(cudaEventRecord(event, stream), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(cudaSetDevice(0), cudaSuccess);
  EXPECT_EQ(Touch("kernel", stream, {}, {}), cudaSuccess);
  EXPECT_EQ(sim.machine.ReportText(), "");
}

TEST(Stream, UseAfterDestroyIsReported) {
  TestMachine sim;
  const cudaStream_t stream = NewStream();
  const cudaEvent_t event = NewEvent();
  EXPECT_EQ(cudaEventRecord(event, stream), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
  EXPECT_EQ(cudaEventSynchronize(event), cudaSuccess);  // what the stream was given still runs
  EXPECT_EQ(cudaEventDestroy(event), cudaSuccess);
  EXPECT_EQ(sim.machine.ReportText(), "");
  EXPECT_EQ(cudaEventRecord(event, stream), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(sim.Times(ReportKind::kHandle), 2);
}

TEST(Stream, HasAPriorityInTheRange) {
  TestMachine sim;
  int least, greatest, priority;
  EXPECT_EQ(cudaDeviceGetStreamPriorityRange(&least, &greatest), cudaSuccess);
  EXPECT_LT(greatest, least);
  cudaStream_t stream;
  EXPECT_EQ(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest - 3), cudaSuccess);
  EXPECT_EQ(cudaStreamGetPriority(stream, &priority), cudaSuccess);
  EXPECT_EQ(priority, greatest);
}

TEST(Event, NeverRecordedIsDoneAndAWaitForItIsReported) {
  TestMachine sim;
  const cudaStream_t stream = NewStream();
  const cudaEvent_t event = NewEvent();
  EXPECT_EQ(cudaEventQuery(event), cudaSuccess);
  EXPECT_EQ(sim.machine.ReportText(), "");
  EXPECT_EQ(cudaStreamWaitEvent(stream, event), cudaSuccess);
  EXPECT_EQ(sim.Times(ReportKind::kNeverRecorded), 1);
}

TEST(Event, TimesAreKnownWhenItHasHappened) {
  TestMachine sim;
  const cudaStream_t stream = NewStream();
  const cudaEvent_t begin = NewEvent(), end = NewEvent();
  cudaEvent_t untimed;
  EXPECT_EQ(cudaEventCreateWithFlags(&untimed, cudaEventDisableTiming), cudaSuccess);
  float milliseconds;
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, begin, end), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(cudaEventRecord(begin, stream), cudaSuccess);
  EXPECT_EQ(Touch("kernel", stream, {}, {}), cudaSuccess);
  for (cudaEvent_t event : {end, untimed}) EXPECT_EQ(cudaEventRecord(event, stream), cudaSuccess);
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, begin, end), cudaErrorNotReady);
  EXPECT_EQ(cudaEventSynchronize(end), cudaSuccess);
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, begin, end), cudaSuccess);
  EXPECT_GT(milliseconds, 0);
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, begin, untimed), cudaErrorInvalidResourceHandle);
}

TEST(Launch, IsJudgedByItsShape) {
  TestMachine sim;
  const cudaStream_t stream = NewStream();
  const auto launch = [&](dim3 grid, dim3 block, int shared_bytes) {
    return Launch({.name = "kernel",
                   .grid = grid,
                   .block = block,
                   .shared_bytes = shared_bytes,
                   .stream = stream,
                   .site = std::source_location::current(),
                   .library_call = [] { return cudaSuccess; }});
  };
  EXPECT_EQ(launch({1}, {1024}, 48 * 1024), cudaSuccess);
  EXPECT_EQ(launch({1}, {1025}, 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch({1}, {0}, 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch({1, 65536}, {32}, 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch({1}, {32}, 48 * 1024 + 1), cudaErrorInvalidValue);
  const void* kernel = nullptr;
  EXPECT_EQ(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 227 * 1024 + 1),
            cudaErrorInvalidValue);
  EXPECT_EQ(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 227 * 1024), cudaSuccess);
  EXPECT_EQ(launch({1}, {32}, 227 * 1024), cudaSuccess);
}

struct ScaleArguments {
  const float* x;
  float* y;
  int n;
  float by;
};
const bool registered = RegisterBody("Scale", [](const void* arguments) {
  const auto& scale = *static_cast<const ScaleArguments*>(arguments);
  for (int i = 0; i < scale.n; ++i) scale.y[i] = scale.by * scale.x[i];
});

TEST(Launch, RunsTheBodyOfItsKernel) {
  TestMachine sim;
  const cudaStream_t stream = NewStream();
  std::byte *device = NewMemory(24), *host = NewHostMemory(24);
  const float numbers[] = {1, 2, 3};
  std::memcpy(host, numbers, sizeof(numbers));
  EXPECT_EQ(cudaMemcpyAsync(device, host, 12, cudaMemcpyHostToDevice, stream), cudaSuccess);
  const ScaleArguments scale = {reinterpret_cast<float*>(device), reinterpret_cast<float*>(device + 12), 3, 10};
  std::vector<std::byte> arguments(sizeof(scale));
  std::memcpy(arguments.data(), &scale, sizeof(scale));
  EXPECT_EQ(Launch({.name = "Scale",
                    .arguments = arguments,
                    .grid = {1},
                    .block = {32},
                    .stream = stream,
                    .reads = {Bytes(device, 12)},
                    .writes = {Bytes(device + 12, 12)},
                    .site = std::source_location::current()}),
            cudaSuccess);
  EXPECT_EQ(cudaMemcpyAsync(host, device, 24, cudaMemcpyDeviceToHost, stream), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  float result[6];
  std::memcpy(result, host, sizeof(result));
  EXPECT_THAT(result, testing::ElementsAre(1, 2, 3, 10, 20, 30));
  EXPECT_EQ(sim.machine.ReportText(), "");
}

TEST(Launch, OutsideOfMemoryTheDeviceIsLost) {
  TestMachine sim({.devices = 2});
  const cudaStream_t stream = NewStream(0);
  std::byte* data = NewMemory(64, 0);
  EXPECT_EQ(Touch("kernel", stream, {}, {Bytes(data, 65)}), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorIllegalAddress);
  EXPECT_EQ(cudaGetLastError(), cudaErrorIllegalAddress);
  EXPECT_EQ(cudaGetLastError(), cudaErrorIllegalAddress);  // for ever
  EXPECT_EQ(Touch("kernel", stream, {}, {}), cudaErrorIllegalAddress);
  EXPECT_EQ(sim.Times(ReportKind::kRegion), 1);
  EXPECT_EQ(cudaSetDevice(1), cudaErrorIllegalAddress);
}

TEST(Launch, ReachesAPeerOnlyWithAccess) {
  for (bool access : {true, false}) {
    TestMachine sim({.devices = 2});
    std::byte* far = NewMemory(64, 1);
    const cudaStream_t stream = NewStream(0);
    if (access) MustSucceed(cudaDeviceEnablePeerAccess(1, 0));
    EXPECT_EQ(Touch("kernel", stream, {}, {Bytes(far, 64)}), cudaSuccess);
    EXPECT_EQ(cudaStreamSynchronize(stream), access ? cudaSuccess : cudaErrorIllegalAddress);
    EXPECT_EQ(sim.Times(ReportKind::kRegion), access ? 0 : 1);
  }
}

TEST(Fault, StrikesTheNthCall) {
  TestMachine sim(
      {.faults = {{.call = "cudaMemsetAsync", .at = 1, .error = cudaErrorNotPermitted},
                  {.call = "kernel", .at = 2, .error = cudaErrorLaunchFailure, .where = Fault::Where::kExecution}}});
  const cudaStream_t stream = NewStream();
  std::byte* data = NewMemory(64);
  EXPECT_EQ(cudaMemsetAsync(data, 0, 64, stream), cudaSuccess);
  EXPECT_EQ(cudaMemsetAsync(data, 0, 64, stream), cudaErrorNotPermitted);
  EXPECT_EQ(cudaMemsetAsync(data, 0, 64, stream), cudaSuccess);
  int ran = 0;
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(Touch("kernel", stream, {}, {}, [&] { return ++ran, cudaSuccess; }), cudaSuccess);
  }
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorLaunchFailure);
  EXPECT_EQ(ran, 2);
  EXPECT_EQ(sim.machine.ReportText(), "");
}

TEST(Environment, SaysWhatTheMachineIsLike) {
  const auto options = ParseMachineOptions("devices=4,seed=7,threads=1,memory_mib=2");
  ASSERT_TRUE(options.ok());
  EXPECT_EQ(options->devices, 4);
  EXPECT_EQ(options->seed, 7u);
  EXPECT_EQ(options->fidelity, Fidelity::kEveryThread);
  EXPECT_EQ(options->memory_limit, 2 << 20);
  for (const char* text : {"devices", "devices=-1", "devices=65", "threads=2", "speed=9", "seed=x"}) {
    EXPECT_THAT(std::string(ParseMachineOptions(text).status().message()), HasSubstr(text)) << text;
  }
}

TEST(Environment, AProgramWithoutAMachineHasOneAndEndsWithItsReports) {
  EXPECT_EXIT(
      {
        setenv("GPU_SIM", "devices=2", 1);
        const cudaStream_t stream = NewStream(1);
        std::byte* data = NewMemory(64, 1);
        MustSucceed(cudaMemsetAsync(data, 1, 64, stream));
        MustSucceed(cudaStreamSynchronize(stream));
        MustSucceed(Touch("kernel", stream, {Bytes(data, 64)}, {}));
        MustSucceed(Touch("kernel", NewStream(1), {}, {Bytes(data, 64)}));
        exit(0);
      },
      testing::ExitedWithCode(1), "gpu_sim found:\nnothing orders kernel at ");
}

}  // namespace
}  // namespace gpu_sim
