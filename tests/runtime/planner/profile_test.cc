// Plans from measured costs: layout.profile.
#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/config/layer_profile.h"
#include "runtime/planner/plan.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kMs = 1'000'000;

JobConfig Job() {
  constexpr char kJob[] = R"(model { layers: 6 channels: 64 heads: 4 }
data { text: "t" }
training { batch: 16 micro_batches: 8 sequence: 32 }
layout { pp: 2 threads_per_rank: 1 }
)";
  return *ParseJob(kJob, "job.textproto");
}

// As many milliseconds for each pass of every layer, and so many for the loss.
void Profile(JobConfig* job, int64_t layer_ms, int64_t loss_ms) {
  LayerProfile profile = EmptyProfileOf(*job);
  profile.processor = "a processor";
  for (ProfiledLayer& layer : profile.layers) layer.times = {layer_ms * kMs, layer_ms * kMs, layer_ms * kMs};
  profile.layers.back().times = {loss_ms * kMs, loss_ms * kMs, loss_ms * kMs};
  profile.optimizer_ns_per_parameter = 2;
  profile.hand_over_ns = 5 * kMs;
  job->layout.measured = std::make_shared<const LayerProfile>(profile);
}

TEST(PlanWithProfile, CutsWhereTheMeasuredCostsSay) {
  JobConfig job = Job();  // 15 layers
  Profile(&job, 1, 14);
  const auto plan = MakePlan(job);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->stages[0].end, 14u);
  EXPECT_EQ(plan->stages[1].costs.forward_ns, 14 * kMs);
  EXPECT_THAT(plan->cost_source, HasSubstr("measured on a processor"));
  Profile(&job, 1, 1);
  EXPECT_EQ(MakePlan(job)->stages[0].end, 7u);
}

TEST(PlanWithProfile, PredictsWithItsOptimizerAndHandOver) {
  JobConfig job = Job();
  Profile(&job, 1, 1);
  const auto plan = MakePlan(job);
  ASSERT_TRUE(plan.ok()) << plan.status();
  for (const StagePlan& stage : plan->stages) EXPECT_EQ(stage.costs.optimizer_ns, 2 * stage.parameters);
  EXPECT_EQ(plan->costs.transfer_latency_ns, 5 * kMs);
}

TEST(PlanWithProfile, RefusesOneOfAnotherJob) {
  JobConfig job = Job();
  Profile(&job, 1, 1);
  job.layout.profile_place = "job.textproto:4: ";
  job.layout.threads_per_rank = 2;
  const absl::Status status = MakePlan(job).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(),
              testing::AllOf(HasSubstr("job.textproto:4: layout.profile"), HasSubstr("threads a rank 1")));
}

}  // namespace
}  // namespace sluice
