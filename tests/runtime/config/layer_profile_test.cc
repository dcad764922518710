// Measured costs as a file, and for which jobs they are.
#include "runtime/config/layer_profile.h"

#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kJob[] = R"(model { layers: 2 channels: 32 heads: 2 }
data { text: "t" }
training { batch: 8 micro_batches: 4 sequence: 32 }
layout { threads_per_rank: 2 }
)";

std::string JobWith(const std::string& profile) {
  std::string text = kJob;
  text.insert(text.rfind('}'), "profile: \"" + profile + "\" ");
  return text;
}

JobConfig Job(std::vector<std::string> overrides = {}) {
  absl::StatusOr<JobConfig> job = ParseJob(kJob, "job", {.overrides = std::move(overrides)});
  EXPECT_TRUE(job.ok()) << job.status();
  return *std::move(job);
}

LayerProfile SomeProfile() {
  LayerProfile profile = EmptyProfileOf(Job());
  profile.processor = "A processor";
  for (size_t i = 0; i < profile.layers.size(); ++i) {
    profile.layers[i].times = {.forward_ns = 1'000'000 + static_cast<int64_t>(i),
                               .input_gradient_ns = 2'000'000,
                               .weight_gradient_ns = 3'000'000};
  }
  profile.optimizer_ns_per_parameter = 2.5;
  profile.hand_over_ns = 40'000;
  return profile;
}

TEST(LayerProfile, IsReadAsItWasWritten) {
  const LayerProfile written = SomeProfile();
  const auto read = LayerProfileFromText(ToText(written), "p");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(ToText(*read), ToText(written));
  EXPECT_EQ(read->layers[3].times.forward_ns, 1'000'003);
  EXPECT_EQ(read->graph_hash, written.graph_hash);
  EXPECT_TRUE(CheckFits(*read, Job()).ok());
}

TEST(LayerProfile, NamesWhatAnotherJobHas) {
  const LayerProfile profile = SomeProfile();
  const auto refusal = [&](std::vector<std::string> overrides) {
    const absl::Status status = CheckFits(profile, Job(std::move(overrides)));
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(status.message(), HasSubstr("sluice profile job"));
    return std::string(status.message());
  };
  EXPECT_THAT(refusal({"training.batch=16"}), HasSubstr("rows of a micro-batch 2 (the job has 4)"));
  EXPECT_THAT(refusal({"training.sequence=64"}), HasSubstr("sequence 32 (the job has 64)"));
  EXPECT_THAT(refusal({"training.precision=bf16"}), HasSubstr("precision f32 (the job has bf16)"));
  EXPECT_THAT(refusal({"layout.threads_per_rank=1"}), HasSubstr("threads a rank 2 (the job has 1)"));
  EXPECT_THAT(refusal({"training.recompute=full"}), HasSubstr("recomputation none (the job has full)"));
  EXPECT_THAT(refusal({"model.layers=3"}), HasSubstr("layers 7 (the job has 9)"));
  EXPECT_THAT(refusal({"model.channels=64"}), HasSubstr("a model of the same name with other sizes"));
  // Another cut or schedule is what a profile is for.
  EXPECT_TRUE(CheckFits(profile, Job({"layout.pp=2", "schedule.name=zb_h1"})).ok());
}

TEST(LayerProfile, RefusesWhatIsNone) {
  const auto refusal = [](const std::string& text) {
    const auto profile = LayerProfileFromText(text, "p");
    EXPECT_FALSE(profile.ok()) << text;
    return std::string(profile.status().message());
  };
  EXPECT_THAT(refusal(""), HasSubstr("job"));
  EXPECT_THAT(refusal("job { }"), HasSubstr("layer"));
  EXPECT_THAT(refusal("format_version: 2\njob { }\nlayer { }"), AllOf(HasSubstr("p:1"), HasSubstr("version 1, not 2")));
  EXPECT_THAT(refusal("job { }\nlayer { forward_ms: -1 }"), AllOf(HasSubstr("p:2"), HasSubstr("layer.0.forward_ms")));
  EXPECT_THAT(refusal("job { }\nlayer { forward_ms: nan }"), HasSubstr("layer.0.forward_ms"));
  EXPECT_THAT(refusal("job { }\nlayers { }"), AllOf(HasSubstr("p:2"), HasSubstr("layer")));
}

TEST(LayerProfile, AJobReadsItFromItsOwnFolder) {
  const std::string folder = ::testing::TempDir();
  std::ofstream(folder + "/measured.textproto") << ToText(SomeProfile());
  const std::string text = JobWith("measured.textproto");
  const auto job = ParseJob(text, folder + "/job.textproto");
  ASSERT_TRUE(job.ok()) << job.status();
  ASSERT_NE(job->layout.measured, nullptr);
  EXPECT_EQ(job->layout.measured->processor, "A processor");
}

TEST(LayerProfile, AMissingOneIsAnErrorButForWhoMakesIt) {
  const std::string text = JobWith("none.textproto");
  const auto job = ParseJob(text, "folder/job.textproto");
  EXPECT_THAT(job.status().message(), AllOf(HasSubstr("job.textproto:4"), HasSubstr("folder/none.textproto"),
                                            HasSubstr("sluice profile folder/job.textproto")));
  const auto ignored = ParseJob(text, "folder/job.textproto", {.profile_file = ProfileFile::kIgnored});
  ASSERT_TRUE(ignored.ok()) << ignored.status();
  EXPECT_EQ(ignored->layout.measured, nullptr);
  EXPECT_EQ(ignored->layout.profile, "folder/none.textproto");
}

}  // namespace
}  // namespace sluice
