// MFU and what goes with it, by hand.
#include "tools/measure/gpu_shares.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tools/measure/model_flops.h"

namespace sluice::tools {
namespace {

using testing::HasSubstr;

JobConfig Job(const char* more) {
  const auto job = ParseJob(std::string(R"(model { preset: "124M" }
data { text: "t" }
training { batch: 8 micro_batches: 8 sequence: 1024 precision: bf16 }
)") + more,
                            "job");
  EXPECT_TRUE(job.ok()) << job.status();
  return *job;
}

// 124,439,808 parameters, 12 layers of width 768: 6N + 12LdT.
TEST(ModelFlops, OfGpt2AreThoseOfThePapers) {
  EXPECT_DOUBLE_EQ(FlopsPerToken(Job("")), 6 * 124439808.0 + 12 * 12 * 768 * 1024.0);
}

TEST(GpuShares, FollowFromStepsAndProducts) {
  const JobConfig job = Job("layout { pp: 2 }");
  BenchResult result{.tokens = 8192, .step_ms = {100, 50, 20}};
  result.operations.push_back(
      {.operation = "linear forward", .shape = {.products = Products::kForward}, .ms = {10, 10}, .flops = 4e12});
  result.operations.push_back({.operation = "attention", .shape = {.products = Products::kAttention}, .flops = 1e12});
  const GpuShares shares = SharesOf(result, job, "NVIDIA H100 80GB HBM3");
  EXPECT_DOUBLE_EQ(shares.tokens_per_second, 8192 / 0.05);
  EXPECT_DOUBLE_EQ(shares.peak_flops, 989.4e12);
  EXPECT_DOUBLE_EQ(shares.model_flops_share, 8192 / 0.05 * FlopsPerToken(job) / 2 / 989.4e12);
  EXPECT_DOUBLE_EQ(shares.products_per_second, 4e14);
  EXPECT_DOUBLE_EQ(shares.products_share, shares.model_flops_share * 989.4e12 / 4e14);
  EXPECT_THAT(ToText(shares), HasSubstr("MFU"));
  EXPECT_THAT(ToText(SharesOf(result, job, "Simulated GPU")), HasSubstr("no MFU"));
}

}  // namespace
}  // namespace sluice::tools
