// Virtual time: how long commands take, what runs beside what, and that a seed gives one run.
#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "tests/gpu_sim/test_program.h"

namespace gpu_sim {
namespace {

// Round numbers: a kernel takes 100 us, a copy 10 us and 1 us a KB.
MachineOptions RoundNumbers(int devices) {
  DeviceDescription device = H100();
  device.launch_latency = 5'000;
  device.host = device.peer = {.bytes_per_second = 1e9, .latency = 10'000};
  return {.devices = devices, .device = device, .timing = Timing::kModelled, .kernel_time = [](const KernelLaunch&) {
            return Nanoseconds{100'000};
          }};
}

TEST(Time, KernelsOfADeviceFollowOneAnotherAndCopiesRunBeside) {
  TestMachine sim(RoundNumbers(1));
  const cudaStream_t compute = NewStream(), other = NewStream(), copies = NewStream();
  std::byte *device = NewMemory(4000), *host = NewHostMemory(4000);
  EXPECT_EQ(cudaMemcpyAsync(device, host, 4000, cudaMemcpyHostToDevice, copies), cudaSuccess);
  for (cudaStream_t stream : {compute, other, compute}) EXPECT_EQ(Touch("kernel", stream, {}, {}), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(copies), cudaSuccess);
  EXPECT_EQ(sim.world.Now(), 5'000 + 10'000 + 4'000);
  EXPECT_EQ(cudaStreamSynchronize(other), cudaSuccess);
  EXPECT_EQ(sim.world.Now(), 5'000 + 200'000);
  EXPECT_EQ(cudaStreamSynchronize(compute), cudaSuccess);
  EXPECT_EQ(sim.world.Now(), 5'000 + 300'000);
}

TEST(Time, DevicesRunAtOnceAndAnEventOrdersThem) {
  TestMachine sim(RoundNumbers(2));
  const cudaStream_t first = NewStream(0), second = NewStream(1);
  const cudaEvent_t event = NewEvent(0);
  EXPECT_EQ(cudaSetDevice(0), cudaSuccess);
  EXPECT_EQ(Touch("kernel", first, {}, {}), cudaSuccess);
  EXPECT_EQ(cudaEventRecord(event, first), cudaSuccess);
  EXPECT_EQ(cudaSetDevice(1), cudaSuccess);
  EXPECT_EQ(Touch("kernel", second, {}, {}), cudaSuccess);
  EXPECT_EQ(cudaStreamWaitEvent(second, event), cudaSuccess);
  EXPECT_EQ(Touch("kernel", second, {}, {}), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(second), cudaSuccess);
  EXPECT_EQ(sim.world.Now(), 5'000 + 200'000);
}

TEST(Time, EachDirectionOfEachPairOfDevicesIsALink) {
  TestMachine sim(RoundNumbers(3));
  std::vector<std::byte*> memory;
  for (int device = 0; device < 3; ++device) {
    memory.push_back(NewMemory(90'000, device));
    EXPECT_EQ(cudaMemsetAsync(memory[device], 0, 90'000, NewStream(device)), cudaSuccess);
  }
  EXPECT_EQ(cudaDeviceEnablePeerAccess(0, 0), cudaSuccess);
  sim.world.Spend(1'000'000);
  EXPECT_EQ(cudaSetDevice(0), cudaSuccess);
  EXPECT_EQ(cudaDeviceEnablePeerAccess(1, 0), cudaSuccess);
  EXPECT_EQ(cudaDeviceEnablePeerAccess(2, 0), cudaSuccess);
  const Nanoseconds start = sim.world.Now();
  const auto copy = [&](int to, int from) {
    const cudaStream_t stream = NewStream(to);
    EXPECT_EQ(cudaMemcpyPeerAsync(memory[to], to, memory[from], from, 85'000, stream), cudaSuccess);
    return stream;
  };
  const cudaStream_t there = copy(1, 0), back = copy(0, 1), away = copy(2, 0), again = copy(1, 0);
  for (cudaStream_t stream : {there, back, away}) EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  EXPECT_EQ(sim.world.Now() - start, 100'000);
  EXPECT_EQ(cudaStreamSynchronize(again), cudaSuccess);
  EXPECT_EQ(sim.world.Now() - start, 195'000);
}

TEST(Time, ALaunchCostsTheSlowerOfItsBytesAndItsArithmetic) {
  const DeviceDescription device = {.flops = 1e12, .memory_bytes_per_second = 1e9, .kernel_time_min = 2'000};
  KernelLaunch launch = {.reads = {{nullptr, 1'000, 3, 4'000}}, .writes = {{nullptr, 1'000, 1, 0}}};
  EXPECT_EQ(KernelTime(device, launch), 4'000);
  launch.flops = 5e6;
  EXPECT_EQ(KernelTime(device, launch), 5'000);
  EXPECT_EQ(KernelTime(device, {}), 2'000);
}

TEST(Time, ElapsedTimeIsThatOfTheDevice) {
  TestMachine sim(RoundNumbers(1));
  const cudaStream_t stream = NewStream();
  const cudaEvent_t begin = NewEvent(), end = NewEvent();
  EXPECT_EQ(cudaEventRecord(begin, stream), cudaSuccess);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Touch("kernel", stream, {}, {}), cudaSuccess);
  EXPECT_EQ(cudaEventRecord(end, stream), cudaSuccess);
  EXPECT_EQ(cudaEventSynchronize(end), cudaSuccess);
  float milliseconds = 0;
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, begin, end), cudaSuccess);
  EXPECT_FLOAT_EQ(milliseconds, 0.305f);
}

// Which of 3 streams' kernels ran in which order.
std::vector<int> OrderOf(uint64_t seed, uint64_t* hash) {
  TestMachine sim({.seed = seed});
  std::vector<int> order;
  std::vector<cudaStream_t> streams = {NewStream(), NewStream(), NewStream()};
  for (int i = 0; i < 9; ++i) {
    MustSucceed(Touch("kernel", streams[i % 3], {}, {}, [&order, i] { return order.push_back(i), cudaSuccess; }));
  }
  MustSucceed(cudaDeviceSynchronize());
  *hash = sim.machine.trace_hash();
  return order;
}

TEST(Seed, GivesOneRun) {
  std::set<std::vector<int>> orders;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    uint64_t first, second;
    const std::vector<int> order = OrderOf(seed, &first);
    EXPECT_EQ(OrderOf(seed, &second), order);
    EXPECT_EQ(first, second);
    for (int i = 3; i < 9; ++i) {
      EXPECT_LT(std::find(order.begin(), order.end(), i - 3), std::find(order.begin(), order.end(), i))
          << "a stream's order";
    }
    orders.insert(order);
  }
  EXPECT_GT(orders.size(), 45u) << "another seed gives another order";
}

TEST(Seed, BringsOutEveryPermittedOrder) {
  // Two streams of two kernels: 6 orders.
  std::set<std::vector<int>> orders;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    TestMachine sim({.seed = seed});
    std::vector<int> order;
    const cudaStream_t streams[] = {NewStream(), NewStream()};
    for (int i = 0; i < 4; ++i) {
      MustSucceed(Touch("kernel", streams[i % 2], {}, {}, [&order, i] { return order.push_back(i), cudaSuccess; }));
    }
    MustSucceed(cudaDeviceSynchronize());
    orders.insert(order);
  }
  EXPECT_EQ(orders.size(), 6u);
}

}  // namespace
}  // namespace gpu_sim
