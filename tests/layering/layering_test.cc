// The arrows of the house, held against the sources; and each rule held against sources made up to break it.
//
// The sources are read from the checkout itself (where the link WORKSPACE among the test's files leads), so that no
// file can escape by not being named in a BUILD file.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>

#include "tests/layering/arrows.h"
#include "tests/layering/rules.h"
#include "tests/layering/sources.h"

namespace sluice::layering {
namespace {

const Sources& Checkout() {
  static const Sources sources = ReadSources(std::filesystem::canonical("WORKSPACE").parent_path().string());
  return sources;
}

void ExpectNone(const Violations& violations) {
  for (const std::string& violation : violations) ADD_FAILURE() << violation;
}

// Exactly one violation, which says `what`.
void ExpectOne(const Violations& violations, const std::string& what) {
  ASSERT_EQ(violations.size(), 1u) << "while expecting: " << what;
  EXPECT_NE(violations[0].find(what), std::string::npos) << violations[0];
}

TEST(Checkout, IsFound) {
  EXPECT_TRUE(Checkout().contains("BUILD"));
  EXPECT_TRUE(Checkout().contains("tests/layering/layering_test.cc"));
}

TEST(Checkout, EveryFileLiesInARoom) { ExpectNone(FilesWithoutRoom(Checkout())); }
TEST(Checkout, IncludesFollowTheArrows) { ExpectNone(IncludesAgainstArrows(Checkout())); }
TEST(Checkout, BuildFilesFollowTheArrows) { ExpectNone(LabelsAgainstArrows(Checkout())); }
TEST(Checkout, LibrariesStayInTheirPlace) { ExpectNone(LibrariesOutOfPlace(Checkout())); }
TEST(Checkout, PureFoldersStayPure) { ExpectNone(ImpureIncludes(Checkout())); }
TEST(Checkout, ExecutorAndSchedulerReachNoDevice) { ExpectNone(LibrariesReached(Checkout())); }
TEST(Checkout, NoIncludesGoInCircles) { ExpectNone(IncludeCircles(Checkout())); }
TEST(Checkout, NobodyBelowToolsReadsTheEnvironment) { ExpectNone(EnvironmentReads(Checkout())); }

TEST(Arrows, NoRoomSeesARoomThatSeesIt) {
  const auto may_see = [](const Arrow& from, const Arrow& to) {
    return std::find(from.to.begin(), from.to.end(), to.from) != from.to.end();
  };
  for (const Arrow& a : Arrows()) {
    for (const Arrow& b : Arrows()) {
      EXPECT_FALSE(a.from != b.from && may_see(a, b) && may_see(b, a)) << a.from << " and " << b.from;
    }
  }
}

TEST(Scan, FindsIncludesOfEveryForm) {
  const auto found = Includes("#include <a>\n  #  include \"b/c.h\"  // why\n// #include \"no.h\"\n#include MACRO\n");
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].target, "a");
  EXPECT_EQ(found[1].target, "b/c.h");
  EXPECT_EQ(found[1].line, 2);
}

TEST(Scan, TurnsLabelsIntoPathsAndSkipsVisibility) {
  const auto found = Labels(
      "# \"//no\"\ndeps = [\"//base\", \"//a/b:c\", \":own\", \"@x//y\"],\nvisibility = [\"//visibility:public\", "
      "\"//tests:__subpackages__\"]\nselect({\"//conditions:default\": [\"//a/b\"]})\n");
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].target, "base/base");
  EXPECT_EQ(found[1].target, "a/b/c");
  EXPECT_EQ(found[2].target, "a/b/b");
}

TEST(Rules, UpwardIncludeIsNamedWithItsLine) {
  ExpectOne(IncludesAgainstArrows({{"scheduler/a.cc", "\n#include \"stages/stage.h\"\n"}}),
            "scheduler/a.cc:2: scheduler/ may not see stages/stage.h");
  ExpectOne(IncludesAgainstArrows({{"base/a.h", "#include \"kernels/device.h\""}}), "base/ may not see");
  ExpectOne(IncludesAgainstArrows({{"runtime/a.h", "#include \"tools/verbs.h\""}}), "runtime/ may not see");
  ExpectOne(IncludesAgainstArrows({{"kernels/a.h", "#include \"stages/graph.h\""}}), "kernels/ may not see");
}

TEST(Rules, NobodySeesTestsButTests) {
  ExpectOne(IncludesAgainstArrows({{"tools/a.cc", "#include \"tests/sim/sim_world.h\""}}), "tools/ may not see");
  ExpectNone(IncludesAgainstArrows({{"tests/e2e/a.cc", "#include \"tests/sim/sim_world.h\""}}));
  ExpectOne(IncludesAgainstArrows({{"tests/e2e/a.cc", "#include \"tests/gpu_sim/include/cuda_runtime.h\""}}), "by path");
}

TEST(Rules, TheMoreSpecialRowDecides) {
  ExpectNone(IncludesAgainstArrows({{"stages/graph_io.cc", "#include \"proto/graph.pb.h\""}}));
  ExpectOne(IncludesAgainstArrows({{"stages/graph.cc", "#include \"proto/graph.pb.h\""}}), "stages/ may not see");
  ExpectNone(IncludesAgainstArrows({{"runtime/trainer/a.cc", "#include \"kernels/cpu/cpu_device.h\""}}));
  ExpectOne(IncludesAgainstArrows({{"runtime/executor/a.cc", "#include \"kernels/cpu/cpu_device.h\""}}),
            "runtime/executor/ may not see");
  ExpectOne(IncludesAgainstArrows({{"runtime/executor/a.cc", "#include \"stages/graph.h\""}}), "(only ");
  ExpectNone(IncludesAgainstArrows({{"runtime/executor/a.cc", "#include \"stages/stage.h\""}}));
  ExpectOne(IncludesAgainstArrows({{"stages/partition/a.cc", "#include \"kernels/tensor.h\""}}), "stages/partition/");
  ExpectOne(IncludesAgainstArrows({{"kernels/cuda/a.cu", "#include \"kernels/cpu/team.h\""}}), "kernels/cuda/");
}

TEST(Rules, IncludesStartAtTheRoot) {
  ExpectOne(IncludesAgainstArrows({{"base/a.cc", "#include \"b.h\""}, {"base/b.h", ""}}), "by its path from the root");
}

TEST(Rules, AFileOutsideTheHouseIsFound) {
  ExpectOne(FilesWithoutRoom({{"misc/a.cc", ""}, {"base/a.cc", ""}, {"misc/BUILD", ""}}), "misc/a.cc");
}

TEST(Rules, LabelsFollowTheSameArrows) {
  ExpectOne(LabelsAgainstArrows({{"scheduler/BUILD", "deps = [\n\"//base\", \"//stages:graph\"]"}}),
            "scheduler/BUILD:2: scheduler/ may not see stages/graph");
  ExpectOne(LabelsAgainstArrows({{"stages/BUILD", "deps = [\"//kernels\", \"//kernels/cpu\", \"//proto:graph\"]"}}),
            "stages/ may not see kernels/cpu/cpu");
  ExpectNone(LabelsAgainstArrows({{"base/BUILD", "deps = [\"//tools/bazel/deps:absl\"]"}}));
}

TEST(Rules, LibrariesHaveTheirPlaces) {
  ExpectOne(LibrariesOutOfPlace({{"stages/a.cc", "#include <dnnl.hpp>"}}), "dnnl may be seen only by kernels/cpu/");
  ExpectOne(LibrariesOutOfPlace({{"stages/BUILD", "deps = [\"//tools/bazel/deps:dnnl\"]"}}), "stages/BUILD:1: dnnl");
  ExpectOne(LibrariesOutOfPlace({{"runtime/trainer/a.cc", "#include \"boost/asio.hpp\""}}), "runtime/control/");
  ExpectOne(LibrariesOutOfPlace({{"stages/graph.cc", "#include \"google/protobuf/message.h\""}}), "protobuf");
  ExpectNone(LibrariesOutOfPlace({{"stages/graph_io.cc", "#include \"google/protobuf/message.h\""},
                                  {"kernels/cuda/a.cu", "#include <cuda_runtime.h>"},
                                  {"tests/a.cc", "#include <dnnl.hpp>"}}));
}

TEST(Rules, PureFoldersHaveNoThreadFileOrClock) {
  ExpectOne(ImpureIncludes({{"scheduler/a.cc", "#include <vector>\n#include <chrono>"}}), "scheduler/a.cc:2: <chrono>");
  ExpectOne(ImpureIncludes({{"scheduler/a.cc", "#include \"absl/time/time.h\""}}), "no clock");
  ExpectOne(ImpureIncludes({{"runtime/a.cc", "#include <thread>"}}), "through World");
  ExpectNone(ImpureIncludes({{"runtime/control/asio_shell.cc", "#include <thread>"},
                             {"runtime/transport/gloo_transport.cc", "#include <thread>"},
                             {"runtime/a.cc", "#include \"thread_team.h\""},
                             {"base/real_world.cc", "#include <thread>"}}));
}

TEST(Rules, AChainOfHeadersIsFollowed) {
  ExpectOne(LibrariesReached({{"runtime/executor/a.cc", "#include \"stages/stage.h\""},
                              {"stages/stage.h", "#include \"kernels/device.h\""},
                              {"kernels/device.h", "#include <cuda_runtime.h>"}}),
            "must not reach cuda: runtime/executor/a.cc -> stages/stage.h -> kernels/device.h -> cuda_runtime.h");
}

TEST(Rules, CirclesAreNamedOnce) {
  ExpectOne(IncludeCircles({{"base/a.h", "#include \"base/b.h\""},
                            {"base/b.h", "#include \"base/c.h\""},
                            {"base/c.h", "#include \"base/a.h\""},
                            {"base/d.h", "#include \"base/c.h\""}}),
            "base/a.h -> base/b.h -> base/c.h -> base/a.h");
  ExpectNone(IncludeCircles({{"base/a.h", "#include \"base/b.h\"\n#include \"base/c.h\""},
                             {"base/b.h", "#include \"base/c.h\""},
                             {"base/c.h", ""}}));
}

TEST(Rules, ReadingTheEnvironmentIsFound) {
  ExpectOne(EnvironmentReads({{"base/a.cc", "x = std::getenv(\"HOME\");"}, {"tools/a.cc", "getenv(\"HOME\")"}}),
            "base/a.cc:1");
  ExpectNone(EnvironmentReads({{"base/a.cc", "// never getenv(\"HOME\")"}}));
}

}  // namespace
}  // namespace sluice::layering
