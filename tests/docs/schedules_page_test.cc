// docs/schedules.md tells of the generators that there are, in their order, with the pictures that they give today.
// docs/pictures/make.sh makes the pictures.
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/trace/svg.h"
#include "scheduler/generators.h"
#include "scheduler/lowering.h"
#include "scheduler/simulate.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

std::string ReadText(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// The page's part about one schedule.
struct Section {
  std::string name;
  std::string text;
};

std::vector<Section> Sections() {
  std::vector<Section> sections;
  for (absl::string_view line : absl::StrSplit(ReadText("docs/schedules.md"), '\n')) {
    if (absl::ConsumePrefix(&line, "## ")) {
      sections.push_back({std::string(line), ""});
    } else if (!sections.empty()) {
      absl::StrAppend(&sections.back().text, line, "\n");
    }
  }
  if (!sections.empty()) sections.erase(sections.begin());  // the table of all
  return sections;
}

// As `sluice visualize NAME --ranks 4 --micro-batches 8` draws it.
std::string Picture(const Generator& generator) {
  const auto schedule = generator.generate({.ranks = 4, .chunks = generator.chunks, .micro_batches = 8});
  EXPECT_TRUE(schedule.ok()) << schedule.status();
  const auto program = Lower(*schedule);
  EXPECT_TRUE(program.ok()) << program.status();
  const int64_t pass_ns = 4'000'000 / schedule->placement.stages();
  const auto timeline = Simulate(*program, UniformCosts(schedule->placement.stages(), {.forward_ns = pass_ns,
                                                                                       .input_gradient_ns = pass_ns,
                                                                                       .weight_gradient_ns = pass_ns,
                                                                                       .backward_ns = 2 * pass_ns}));
  EXPECT_TRUE(timeline.ok()) << timeline.status();
  return DrawSvg({*timeline});
}

TEST(SchedulesPage, HasEveryGeneratorInItsOrder) {
  std::vector<std::string> names, expected;
  for (const Section& section : Sections()) names.push_back(section.name);
  for (const Generator& generator : Generators()) expected.push_back(generator.name);
  EXPECT_EQ(names, expected);
}

TEST(SchedulesPage, EachHasItsPictureAndFiveLines) {
  for (const Section& section : Sections()) {
    EXPECT_THAT(section.text, HasSubstr(absl::StrCat("(pictures/schedules/", section.name, ".svg)")));
    for (const char* part :
         {"- **What**", "- **Warm-up**", "- **Bubble**", "**Memory**", "- **Choose it**", "- **Source**"}) {
      EXPECT_THAT(section.text, HasSubstr(part)) << section.name;
    }
  }
}

TEST(SchedulesPage, PicturesAreThoseOfToday) {
  for (const Generator& generator : Generators()) {
    const std::string picture = ReadText(absl::StrCat("docs/pictures/schedules/", generator.name, ".svg"));
    EXPECT_EQ(picture, Picture(generator)) << generator.name << ": run docs/pictures/make.sh";
    EXPECT_LT(picture.size(), 60'000u) << generator.name;
  }
}

}  // namespace
}  // namespace sluice
