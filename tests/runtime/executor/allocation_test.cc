// After the first step nothing in this program allocates memory: neither issuing nor computing threads, nor the
// transport's. Counted by replacing the global operator new.
#include <atomic>
#include <cstdlib>
#include <new>

#include "gtest/gtest.h"
#include "tests/runtime/executor/programs.h"
#include "tests/sim/affine_job.h"
#include "tests/sim/affine_stage.h"

namespace {

std::atomic<bool> counting{false};
std::atomic<int64_t> allocations{0};

void* CountedAllocation(size_t bytes) {
  if (counting.load(std::memory_order_relaxed)) allocations.fetch_add(1, std::memory_order_relaxed);
  void* memory = std::malloc(bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(size_t bytes) { return CountedAllocation(bytes); }
void* operator new[](size_t bytes) { return CountedAllocation(bytes); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }

namespace sluice {
namespace {

// Ranks may be one step apart, so counting starts when the last rank begins its second step and ends when the first
// begins its last but one; in between all of them only run steps.
TEST(AllocationTest, StepsAfterTheFirstAllocateNothing) {
  constexpr int kSteps = 12;
  const ProgramChoice choices[] = {{.schedule = "gpipe"},
                                   {.schedule = "1f1b"},
                                   {.schedule = "split"},
                                   {.schedule = "1f1b", .replicas = 2},
                                   {.schedule = "split", .replicas = 2, .zero1 = true}};
  for (ProgramChoice choice : choices) {
    choice.ranks = 3;
    choice.micro_batches = 5;
    choice.tied = true;
    SCOPED_TRACE(ToString(choice));
    AffineJobOptions options{
        .training = MakeProgram(choice), .others = {}, .zero1 = choice.zero1, .steps = kSteps, .tied = true};
    std::atomic<int> arrived = 0;
    options.before_step = [&](PipelineRank, int step) {
      if (step == 1 && arrived.fetch_add(1) + 1 == choice.ranks * choice.replicas) counting = true;
      if (step == kSteps - 1) counting = false;
    };
    const std::unique_ptr<World> world = NewRealWorld();
    allocations = 0;
    const AffineJobResult result = RunAffineJob(world.get(), options);
    counting = false;
    for (const absl::Status& status : result.statuses) ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(allocations.load(), 0);
  }
}

TEST(AllocationTest, TheCounterCounts) {
  allocations = 0;
  counting = true;
  ::operator delete(::operator new(sizeof(int)));
  counting = false;
  EXPECT_EQ(allocations.load(), 1);
}

}  // namespace
}  // namespace sluice
