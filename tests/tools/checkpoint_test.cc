// `sluice checkpoint` as it is typed.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "runtime/checkpoint/safetensors.h"
#include "tests/runtime/checkpoint/test_checkpoints.h"
#include "tests/tools/verb_test.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

LayerGraph Model(int64_t layers = 1) {
  return MlpGraph({.layers = layers, .channels = 8, .width = 8, .vocabulary = 20, .positions = 16, .max_sequence = 16})
      .value();
}

class CheckpointVerb : public VerbTest<tools::AddCheckpoint> {
 protected:
  void SetUp() override {
    VerbTest::SetUp();
    Save("a", 1, Model(), TestState(Model()));
    Save("a", 2, Model(), TestState(Model(), 7));
  }
  // Two stages, the optimizer's state shared by two members.
  void Save(const std::string& root, int64_t step, const LayerGraph& graph, const TestState& state) {
    RandomNumbers random(1);
    const auto nodes = static_cast<int64_t>(graph.nodes.size());
    const auto store = CheckpointStore::Open(folder_ + "/" + root);
    ASSERT_TRUE(store.ok()) << store.status();
    const auto shards = ShardsOf(graph, state, {.cuts = {0, 2, nodes}, .members = 2}, random);
    const auto path = SaveShards(**store, step, graph, shards);
    ASSERT_TRUE(path.ok()) << path.status();
  }
  // In the middle of a checkpoint's first file.
  void FlipABit(const std::string& checkpoint) {
    for (const auto& entry : std::filesystem::directory_iterator(folder_ + "/" + checkpoint)) {
      if (entry.path().extension() != ".safetensors") continue;
      std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
      file.seekg(-5, std::ios::end);
      const char byte = static_cast<char>(file.peek() ^ 4);
      file.seekp(-5, std::ios::end);
      file.put(byte);
      return;
    }
  }
};

TEST_F(CheckpointVerb, ListsWithStepLossAndState) {
  std::filesystem::remove(folder_ + "/a/step-00000002/manifest.json");
  const std::string text = Printed({"list", "a"});
  EXPECT_THAT(text, HasSubstr("step"));
  EXPECT_THAT(text, HasSubstr("1.5000"));
  EXPECT_THAT(text, HasSubstr("complete"));
  EXPECT_THAT(text, HasSubstr("not complete: "));
  const auto json = nlohmann::json::parse(Printed({"list", "a", "--format", "json"}));
  ASSERT_EQ(json.size(), 2u);
  EXPECT_EQ(json[0]["step"], 1);
  EXPECT_EQ(json[0]["complete"], true);
  EXPECT_EQ(json[0]["loss"], 1.5);
  EXPECT_EQ(json[1]["complete"], false);
  EXPECT_THAT(Refusal({"list", "nowhere"}), HasSubstr("nowhere"));
}

TEST_F(CheckpointVerb, ShowsTheNewestTensorByTensor) {
  const std::string text = Printed({"show", "a"});
  EXPECT_THAT(text, HasSubstr("a/step-00000002"));
  EXPECT_THAT(text, HasSubstr("with optimizer state"));
  EXPECT_THAT(text, HasSubstr("head.weight"));
  EXPECT_THAT(text, HasSubstr("[20, 8]"));
  EXPECT_THAT(text, HasSubstr("parameter, m, v"));
}

TEST_F(CheckpointVerb, VerifiesAndNamesWhatIsDamagedAndWhatCouldBeUsed) {
  EXPECT_THAT(Printed({"verify", "a"}), HasSubstr("as it was written"));
  FlipABit("a/step-00000002");
  const std::string refusal = Refusal({"verify", "a"});
  EXPECT_THAT(refusal, HasSubstr(".safetensors: \""));
  EXPECT_THAT(refusal, HasSubstr("an older complete checkpoint: "));
  EXPECT_THAT(Printed({"verify", "a/step-00000001"}), HasSubstr("as it was written"));
  EXPECT_THAT(Refusal({"verify", "--all", "a"}), HasSubstr("1 of 2 checkpoints are damaged"));
}

TEST_F(CheckpointVerb, DiffFindsTheLargestDifferenceFirst) {
  EXPECT_THAT(Printed({"diff", "a/step-00000001", "a/step-00000001"}), HasSubstr("are equal, bit for bit"));
  ::testing::internal::CaptureStdout();
  const absl::Status status = Call({"diff", "a/step-00000001", "a/step-00000002", "--top", "3"});
  std::fflush(stdout);
  const std::string printed = ::testing::internal::GetCapturedStdout();
  EXPECT_EQ(tools::ExitCode(status), 2);
  EXPECT_THAT(printed, HasSubstr("  7  "));
  EXPECT_THAT(printed, HasSubstr("more (--top)"));
  Save("b", 1, Model(2), TestState(Model(2)));
  ::testing::internal::CaptureStdout();
  EXPECT_EQ(tools::ExitCode(Call({"diff", "a", "b"})), 2);
  std::fflush(stdout);
  EXPECT_THAT(::testing::internal::GetCapturedStdout(), HasSubstr("only in the second"));
}

TEST_F(CheckpointVerb, ConvertsToOneFileOfWholeTensors) {
  Printed({"convert", "a", "-o", "model.safetensors"});
  const auto file = SafetensorsFile::Open(folder_ + "/model.safetensors");
  ASSERT_TRUE(file.ok()) << file.status();
  const TestState state(Model(), 7);
  EXPECT_EQ(3 * file->tensors().size(), state.size());
  for (const StoredTensor& tensor : file->tensors()) {
    std::vector<float> values(tensor.elements());
    ASSERT_TRUE(ReadFloats(tensor, 0, absl::MakeSpan(values)).ok());
    EXPECT_EQ(values, state.at(StateKind::kParameter, tensor.name));
  }
  EXPECT_THAT(Refusal({"convert", "a", "-o", "model.safetensors"}), HasSubstr("is there already"));
  EXPECT_THAT(Refusal({"convert", "a", "-o", "nowhere/model.safetensors"}), HasSubstr("create its folder first"));
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    EXPECT_THAT(entry.path().string(), Not(HasSubstr("partial")));
  }
}

TEST_F(CheckpointVerb, ConvertsToACheckpointOfOneFile) {
  EXPECT_THAT(Printed({"convert", "a", "--to", "checkpoint", "-o", "one"}), HasSubstr("one/step-00000002"));
  EXPECT_THAT(Printed({"diff", "a", "one"}), HasSubstr("All 15 tensors are equal"));
  EXPECT_TRUE(std::filesystem::exists(folder_ + "/one/step-00000002/all.safetensors"));
  EXPECT_THAT(Refusal({"convert", "a", "--to", "checkpoint", "-o", "one"}), HasSubstr("is there already"));
}

TEST_F(CheckpointVerb, WrongWordsAreRefused) {
  EXPECT_THAT(Refusal({}), HasSubstr("subcommand"));
  EXPECT_THAT(Refusal({"convert", "a", "--to", "zip", "-o", "x"}), HasSubstr("zip"));
  EXPECT_THAT(Refusal({"show", "."}), HasSubstr("there is no checkpoint here"));
}

}  // namespace
}  // namespace sluice
