// The file of a benchmark's result: what is written is read, and what isn't a result is refused.
#include "tools/measure/result.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/tools/measure/test_result.h"
#include "tools/measure/text.h"

namespace sluice::tools {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string Refusal(const std::string& text) {
  const auto result = ResultFromJson(text, "r.json");
  EXPECT_FALSE(result.ok());
  return std::string(result.status().message());
}

TEST(Result, IsReadAsItWasWritten) {
  const BenchResult written = SomeResult();
  const std::string text = ToJson(written);
  const auto read = ResultFromJson(text, "r.json");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(ToJson(*read), text);
  EXPECT_EQ(ToText(*read), ToText(written));
  EXPECT_EQ(ShapesToText(*read), ShapesToText(written));
  EXPECT_EQ(read->operations[0].shape, written.operations[0].shape);
  EXPECT_EQ(read->job, written.job);
}

TEST(Result, RefusesWhatIsNone) {
  EXPECT_THAT(Refusal("{"), AllOf(HasSubstr("r.json"), HasSubstr("parse error"), HasSubstr("-o FILE")));
  EXPECT_THAT(Refusal("[1]"), HasSubstr("not a result"));
  EXPECT_THAT(Refusal(R"({"format": "else"})"), HasSubstr("not a result"));
  nlohmann::json json = nlohmann::json::parse(ToJson(SomeResult()));
  json["format_version"] = 99;
  EXPECT_THAT(Refusal(json.dump()), AllOf(HasSubstr("version 99"), HasSubstr("measure again")));
  json["format_version"] = 1;
  json["step_ms"] = nlohmann::json::array();
  EXPECT_THAT(Refusal(json.dump()), HasSubstr("without steps"));
  json.erase("step_ms");
  EXPECT_THAT(Refusal(json.dump()), HasSubstr("step_ms"));
  json["step_ms"] = "fast";
  EXPECT_THAT(Refusal(json.dump()), HasSubstr("string"));
}

TEST(Result, RefusesValuesThatNoRunWrites) {
  const nlohmann::json good = nlohmann::json::parse(ToJson(SomeResult()));
  const auto refusal = [&](const char* pointer, const nlohmann::json& value) {
    nlohmann::json json = good;
    json[nlohmann::json::json_pointer(pointer)] = value;
    return Refusal(json.dump());
  };
  EXPECT_THAT(refusal("/step_ms/0", -5), HasSubstr("step_ms"));
  EXPECT_THAT(refusal("/step_ms/0", 0), HasSubstr("step_ms"));
  EXPECT_THAT(refusal("/step_ms/0", 1e308), HasSubstr("step_ms"));
  EXPECT_THAT(refusal("/threads", 0), HasSubstr("threads"));
  EXPECT_THAT(refusal("/operations/0/ms", nlohmann::json::array()), HasSubstr("no time"));
  EXPECT_THAT(refusal("/operations/0/ms/0", -1), HasSubstr("no time"));
  EXPECT_THAT(refusal("/operations/0/operation", "\x1b[31mred\n"), HasSubstr("printable"));
}

TEST(Result, TextHasFloorSplitAndShapes) {
  const std::string text = ToText(SomeResult());
  EXPECT_THAT(text, HasSubstr("floor                  6.5 ms"));  // (10 + 3) / 2 threads
  EXPECT_THAT(text, HasSubstr("matrix products 71.4 %, attention 0.0 %, everything else 28.6 %"));
  EXPECT_THAT(ShapesToText(SomeResult()), HasSubstr("50.0%"));  // own beside oneDNN packed
}

TEST(Result, MedianIsTheMiddleOrTheMeanOfBoth) {
  EXPECT_EQ(Median({}), 0);
  EXPECT_EQ(Median({4, 1, 9, 2}), 3);
  EXPECT_EQ(Median({3, 1, 2}), 2);
}

}  // namespace
}  // namespace sluice::tools
