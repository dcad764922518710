// The CPU's team and stream beyond what every Device promises (tests/conformance): blocks, exceptions, no allocation
// while issuing.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/stream.h"
#include "kernels/cpu/team.h"
#include "kernels/operations.h"

namespace {
std::atomic<int64_t> allocations{0};
}  // namespace

// Every allocation of this program by C++ code is counted.
void* operator new(size_t bytes) {
  ++allocations;
  if (void* data = std::malloc(bytes)) return data;
  throw std::bad_alloc();
}
void operator delete(void* data) noexcept { std::free(data); }
void operator delete(void* data, size_t) noexcept { std::free(data); }

namespace sluice::cpu {
namespace {

class TeamTest : public testing::TestWithParam<int> {};

TEST_P(TeamTest, TakesEachBlockOnce) {
  Team team(GetParam(), {});
  EXPECT_EQ(team.size(), GetParam());
  for (const int64_t blocks : {0, 1, 2, 3, 17, 1000}) {
    std::vector<std::atomic<int>> taken(blocks);
    team.ParallelFor(blocks, [&](int64_t block) { ++taken[block]; });
    for (const auto& count : taken) EXPECT_EQ(count, 1);
  }
}

TEST_P(TeamTest, WhatABlockWroteIsSeenByTheNextLoop) {
  Team team(GetParam(), {});
  std::vector<int64_t> before(64, 0), after(64, 0);
  for (int round = 0; round < 500; ++round) {
    // Each block reads what another one wrote in the loop before.
    team.ParallelFor(64, [&](int64_t block) { after[block] = before[(block * 7 + round) % 64] + 1; });
    if (round % 2 == 0) team.ParallelFor(3, [](int64_t) {});
    std::swap(before, after);
  }
  EXPECT_EQ(before, std::vector<int64_t>(64, 500));
}

TEST_P(TeamTest, RethrowsAndGoesOn) {
  Team team(GetParam(), {});
  for (int round = 0; round < 20; ++round) {
    EXPECT_THROW(team.ParallelFor(100,
                                  [&](int64_t block) {
                                    if (block == 50) throw std::runtime_error("block 50");
                                  }),
                 std::runtime_error);
    std::atomic<int> count{0};
    team.ParallelFor(100, [&](int64_t) { ++count; });
    EXPECT_EQ(count, 100);
  }
}

TEST_P(TeamTest, FlushesDenormalsOnEveryThread) {
  Team team(GetParam(), {});
  volatile float tiny = 1e-38f;
  std::vector<float> results(64, 1.0f);
  team.ParallelFor(64, [&](int64_t block) { results[block] = tiny * 0.01f; });
  EXPECT_EQ(results, std::vector<float>(64, 0.0f));
  EXPECT_NE(tiny * 0.01f, 0.0f) << "outside of the team's work arithmetic is as before";
}

INSTANTIATE_TEST_SUITE_P(Sizes, TeamTest, testing::Values(1, 2, 3, 5));

class StreamTest : public testing::Test {
 protected:
  const std::unique_ptr<World> world_ = NewRealWorld();
  CpuStream stream_{world_.get(), "test", 2, {}};
};

TEST_F(StreamTest, AnExceptionBecomesItsError) {
  stream_.Issue([](Team&) { throw std::runtime_error("no such primitive"); });
  const absl::Status status = world_->Wait(stream_.Record());
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_NE(status.message().find("no such primitive"), absl::string_view::npos) << status;
}

TEST_F(StreamTest, AnExceptionOnAHelperBecomesItsError) {
  stream_.Issue([](Team& team) {
    team.ParallelFor(100, [](int64_t block) {
      if (block >= 50) throw std::bad_alloc();
    });
  });
  bool ran = false;
  stream_.Issue([&ran](Team&) { ran = true; });
  EXPECT_EQ(world_->Wait(stream_.Record()).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(ran) << "work after an error is skipped";
}

TEST_F(StreamTest, ComputesOnItsOwnThread) {
  std::thread::id worker;
  stream_.Issue([&worker](Team&) { worker = std::this_thread::get_id(); });
  ASSERT_TRUE(world_->Wait(stream_.Record()).ok());
  EXPECT_NE(worker, std::this_thread::get_id());
}

TEST(HotPath, AllocatesNothing) {
  auto world = NewRealWorld();
  auto device = NewCpuDevice(world.get(), {.threads = 2});
  auto stream = device->NewStream("test");
  constexpr int64_t kM = 160, kN = 96, kK = 80;
  const Operations& operations = device->operations();
  const LinearShape shape{kN, kK, DType::kF32};
  std::vector<Buffer> buffers;
  const auto tensor = [&](Shape dims) {
    buffers.push_back(*device->Allocate(dims.elements() * 4, "test"));
    return TensorView{buffers.back().data(), DType::kF32, dims};
  };
  const TensorView x = tensor({kM, kK}), weight = tensor({kN, kK}), y = tensor({kM, kN}), dweight = tensor({kN, kK});
  const TensorView packed = tensor({operations.PackedLinearBytes(shape) / 4}), lse = tensor({1, 2, kM});
  const TensorView attended = tensor({kM, 32});
  const auto step = [&] {
    stream->Wait(DoneEvent());
    const EventRef before = stream->Record();
    operations.PackLinear(*stream, shape, weight, packed);
    operations.LinearForward(*stream, {.shape = shape, .x = x, .packed = packed, .y = y});
    operations.LinearInputGradient(*stream, {.shape = shape, .dy = y, .packed = packed, .dx = x});
    operations.LinearWeightGradient(*stream, {.shape = shape, .x = x, .dy = y, .dweight = dweight});
    operations.AttentionForward(*stream,
                                {.shape = {.rows = 1, .sequence = kM, .heads = 2, .kv_heads = 2, .head_size = 16},
                                 .qkv = y,
                                 .y = attended,
                                 .lse = lse});
    const EventRef after = stream->Record();
    ASSERT_TRUE(world->Wait(after).ok());
  };
  // Blocks go to whoever is free: warm up until each thread has had each kind.
  for (int i = 0; i < 200; ++i) step();
  const int64_t before = allocations, device_before = device->memory().allocations;
  for (int i = 0; i < 100; ++i) step();
  EXPECT_EQ(allocations - before, 0);
  EXPECT_EQ(device->memory().allocations, device_before);
}

}  // namespace
}  // namespace sluice::cpu
