// `sluice devices` as it is typed.
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/tools/verb_test.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

class Devices : public VerbTest<tools::AddDevices> {};

TEST_F(Devices, TheCpuIsAlwaysListed) {
  const std::string text = Printed({});
  EXPECT_THAT(text, HasSubstr("CPU  "));
  EXPECT_THAT(text, HasSubstr("thread"));
  const nlohmann::json json = nlohmann::json::parse(Printed({"--format", "json"}));
  EXPECT_GE(json["cpu"]["processors"].size(), 1u);
  EXPECT_GT(json["cpu"]["memory_bytes"], 1 << 20);
}

TEST_F(Devices, GpusAreListedOrSaidWhyNot) {
  const nlohmann::json json = nlohmann::json::parse(Printed({"--format", "json"}));
  const std::string text = Printed({});
  EXPECT_THAT(text, HasSubstr("GPU"));
  EXPECT_EQ(json["gpus"].empty(), json["cuda"].contains("why_not"));
  const std::string why_not = json["cuda"].value("why_not", "");
  EXPECT_THAT(text, HasSubstr(why_not));
  for (const nlohmann::json& gpu : json["gpus"]) {
    EXPECT_THAT(text, HasSubstr(gpu["name"].get<std::string>()));
    EXPECT_GT(gpu["memory_bytes"], 1 << 20);
    EXPECT_EQ(gpu["usable"].get<bool>(), !gpu.contains("why_not"));
  }
}

TEST_F(Devices, UnknownFormatsAreRefused) { EXPECT_THAT(Refusal({"--format", "yaml"}), HasSubstr("yaml")); }

}  // namespace
}  // namespace sluice
