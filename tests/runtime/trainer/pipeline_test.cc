// A rank that fails ends all ranks of its pipeline with its cause, at any time.
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/world.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/config/job.h"
#include "runtime/planner/plan.h"
#include "runtime/trainer/pipeline.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

// A device that gives out only so many allocations.
class PoorDevice final : public Device {
 public:
  PoorDevice(Device* inner, int allocations) : inner_(inner), left_(allocations) {}
  std::string description() const override { return "a device without memory"; }
  absl::StatusOr<Buffer> Allocate(int64_t bytes, absl::string_view purpose) override {
    if (--left_ < 0) return absl::ResourceExhaustedError(absl::StrCat("no memory for ", purpose));
    return inner_->Allocate(bytes, purpose);
  }
  std::unique_ptr<Stream> NewStream(absl::string_view name) override { return inner_->NewStream(name); }
  const Operations& operations() const override { return inner_->operations(); }
  MemoryUse memory() const override { return inner_->memory(); }

 private:
  void Free(std::byte*, int64_t) override {}
  Device* inner_;
  int left_;
};

class PipelineTest : public ::testing::Test {
 protected:
  PipelineTest() {
    const std::string folder = std::getenv("TEST_TMPDIR");
    std::ofstream(folder + "/text.txt") << std::string(500, 'a') << std::string(500, 'b');
    auto job = ParseJob(
        "model { family: 'gpt2' layers: 3 channels: 32 heads: 2 positions: 16 vocabulary: 256 }"
        "data { text: 'text.txt' } training { batch: 4 micro_batches: 4 sequence: 16 }"
        "layout { pp: 3 threads_per_rank: 1 pin: false }",
        folder + "/job.textproto", {.user_directory = folder});
    CHECK_OK(job.status());
    auto plan = MakePlan(*job);
    CHECK_OK(plan.status());
    plan_ = *std::move(plan);
  }

  const std::unique_ptr<World> world_ = NewRealWorld();
  Plan plan_;
};

TEST_F(PipelineTest, ARankWithoutMemoryIsTheErrorOfThePipeline) {
  for (int allocations : {0, 1, 2, 3}) {
    const auto pipeline = Pipeline::Create(
        world_.get(), plan_,
        {.wrap_device = [&](Device* device, PipelineRank rank) -> std::unique_ptr<Device> {
          return std::make_unique<PoorDevice>(device, rank == PipelineRank(1) ? allocations : 1000);
        }});
    ASSERT_FALSE(pipeline.ok()) << allocations;
    EXPECT_EQ(pipeline.status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(std::string(pipeline.status().message()), HasSubstr("no memory for"));
  }
}

}  // namespace
}  // namespace sluice
