// `sluice simulate JOB --on DEVICES` as it is typed: how a job would run on devices that aren't here.
#include <cmath>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/tools/verb_test.h"

namespace sluice {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// Products are all that takes time: no launches, no latency, lines and memory without end.
constexpr char kIdeal[] = R"(name: "ideal" tflops_bf16: 1 tflops_f32: 1 product_share: 1
memory_mib: 1000000 memory_gbytes_per_second: 1e6 memory_share: 1
peer { gbytes_per_second: 1e6 }
)";

class Forecast : public VerbTest<tools::AddSimulate> {
 protected:
  void SetUp() override {
    VerbTest::SetUp();
    Write("job.textproto", R"(model { family: "mlp" layers: 8 channels: 512 width: 512 vocabulary: 256 }
data { text: "t" }
training { batch: 16 micro_batches: 8 sequence: 64 }
layout { pp: 4 }
)");
    Write("gpt.textproto", R"(model { preset: "124M" }
data { text: "t" }
training { batch: 64 micro_batches: 16 sequence: 1024 precision: bf16 }
layout { pp: 4 }
)");
    Write("ideal.textproto", kIdeal);
  }
  void Write(const std::string& name, const std::string& text) { std::ofstream(folder_ + "/" + name) << text; }
  static nlohmann::json Json(std::vector<std::string> words) {
    words.insert(words.end(), {"--format", "json"});
    return nlohmann::json::parse(Printed(words));
  }
};

TEST_F(Forecast, TableAndTimelineOfARealDevice) {
  const std::string text = Printed({"gpt.textproto", "--on", "4x H100"});
  EXPECT_THAT(text, AllOf(HasSubstr("4 x NVIDIA H100 SXM5 80GB in 1 host"), HasSubstr("bubble"), HasSubstr("tokens/s"),
                          HasSubstr("of the data sheet's FLOPs"), HasSubstr("rank 3")));
  const nlohmann::json json = Json({"gpt.textproto", "--on", "4x H100"});
  ASSERT_EQ(json["ranks"].size(), 4u);
  EXPECT_GT(json["model_flops_share"], 0.05);
  EXPECT_LT(json["model_flops_share"], 0.68) << "never above what products reach";
  for (const auto& rank : json["ranks"]) EXPECT_LT(rank["memory_bytes"], json["device_memory_bytes"]);
}

// 6 FLOPs a parameter and token of the linear layers, on one rank without a pipeline.
TEST_F(Forecast, AnIdealDeviceTakesTheTimeOfTheProducts) {
  Write("linear.textproto", R"(name: "one" vocabulary: 256 max_sequence: 64
node { kind: embedding name: "e" vocabulary: 256 channels: 1024 }
node { kind: linear name: "a" channels: 1024 width: 1024 }
node { kind: linear name: "b" channels: 1024 width: 1024 }
node { kind: head name: "h" vocabulary: 256 channels: 1024 }
)");
  Write("linear_job.textproto", R"(model { graph: "linear.textproto" }
data { text: "t" }
training { batch: 16 micro_batches: 8 sequence: 64 }
)");
  const nlohmann::json json = Json({"linear_job.textproto", "--on", "ideal.textproto"});
  const double tokens = 16 * 64, parameters = 2 * 1024.0 * 1024 + 256 * 1024;
  EXPECT_NEAR(json["ranks"][0]["busy_ns"].get<double>(), 1e9 * 6 * parameters * tokens / 1e12, 1e6);
}

TEST_F(Forecast, LaunchesAndLatenciesCost) {
  const auto step = [&](const std::string& more, const char* latency = "") -> int64_t {
    std::string device = kIdeal;
    device.insert(device.find("gbytes_per_second: 1e6 }"), latency);
    Write("box.textproto", device + more);
    return Json({"job.textproto", "--on", "box.textproto"})["step_ns"];
  };
  const int64_t ideal = step("");
  EXPECT_GT(step("launch_us: 10"), ideal + 8 * 3 * 10'000);
  EXPECT_GT(step("", "latency_us: 100 "), ideal + 2 * 3 * 100'000) << "each way through four ranks";
}

TEST_F(Forecast, HostsHaveTheNetworkBetweenThem) {
  const auto step = [&](const char* per_host) -> int64_t {
    Write("box.textproto", std::string(kIdeal) + "network { gbytes_per_second: 1 latency_us: 50 }" + per_host);
    const nlohmann::json json = Json({"job.textproto", "--on", "box.textproto"});
    return json["step_ns"];
  };
  const int64_t one = step(""), two = step("devices_per_host: 2"), four = step("devices_per_host: 1");
  EXPECT_LT(one, two);
  EXPECT_LT(two, four);
  EXPECT_EQ(Json({"job.textproto", "--on", "16x H100"})["hosts"], 2);
}

TEST_F(Forecast, ReplicasOverANetworkReduceSlower) {
  const auto reduce = [&](const char* per_host) -> int64_t {
    Write("box.textproto", std::string(kIdeal) + "network { gbytes_per_second: 0.1 }" + per_host);
    return Json({"job.textproto", "--on", "box.textproto", "--set", "layout.pp=1", "--set", "layout.dp=4"})["step_ns"];
  };
  EXPECT_GT(reduce("devices_per_host: 2"), reduce("") + 10'000'000);
}

TEST_F(Forecast, WhatDoesNotFitIsRefusedWithTheNumbers) {
  Write("small.textproto", std::string(kIdeal) + "memory_mib: 16 reserved_mib: 6");
  EXPECT_THAT(Refusal({"job.textproto", "--on", "small.textproto"}), HasSubstr("memory_mib"))
      << "a field that stands twice";
  std::string small = kIdeal;
  small.replace(small.find("1000000"), 7, "16 reserved_mib: 6");
  Write("small.textproto", small);
  EXPECT_THAT(Refusal({"gpt.textproto", "--on", "small.textproto"}),
              AllOf(HasSubstr("16 MiB"), HasSubstr("6,291,456"), HasSubstr("rank 0 needs"), HasSubstr("10485760")));
}

TEST_F(Forecast, TheTimelineIsAFile) {
  for (const char* name : {"step.svg", "step.json", "step.html", "step.txt", "step.pftrace"}) {
    Printed({"job.textproto", "--on", "A100", "--timeline", name});
    EXPECT_GT(Text(name).size(), 100u) << name;
  }
  EXPECT_THAT(Refusal({"job.textproto", "--on", "A100", "--timeline", "step.doc"}), HasSubstr("step.doc"));
}

TEST_F(Forecast, SaysWhatIsWrongWithItsInput) {
  EXPECT_THAT(Refusal({"job.textproto", "--on", "8x H101"}), AllOf(HasSubstr("H101"), HasSubstr("h100")));
  EXPECT_THAT(Refusal({"job.textproto", "--on", "2x H100"}), AllOf(HasSubstr("4 ranks"), HasSubstr("2x H100")));
  EXPECT_THAT(Refusal({"none.textproto", "--on", "H100"}), HasSubstr("none.textproto"));
  EXPECT_THAT(Refusal({"1f1b", "--on", "H100"}), HasSubstr("job file"));
  EXPECT_THAT(Refusal({"--on", "H100"}), HasSubstr("job file"));
  EXPECT_THAT(Refusal({"job.textproto", "--on", "H100", "--ranks", "8"}), HasSubstr("--set layout.pp"));
  EXPECT_THAT(Refusal({"1f1b", "--set", "layout.pp=8"}), HasSubstr("--on"));
  EXPECT_THAT(Printed({"job.textproto", "--on", "8x H100"}), HasSubstr("Only 4 of the devices"));
  EXPECT_THAT(Printed({"job.textproto", "--on", "4x H100"}), Not(HasSubstr("Only")));
}

TEST_F(Forecast, ScenariosDisturbIt) {
  const int64_t calm = Json({"job.textproto", "--on", "H100"})["step_ns"];
  const int64_t slow = Json({"job.textproto", "--on", "H100", "--straggler", "2=3"})["step_ns"];
  EXPECT_GT(slow, calm * 3 / 2);
}

}  // namespace
}  // namespace sluice
