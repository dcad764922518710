// Folders for other programs: what is written by the names is read back by them, bit for bit.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "nlohmann/json.hpp"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/models/hugging_face_writer.h"
#include "runtime/models/model.h"
#include "stages/families/gpt2.h"
#include "stages/families/mlp.h"
#include "stages/parameters.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

std::map<std::string, std::vector<float>> Parameters(const PretrainedModel& model) {
  std::map<std::string, std::vector<float>> all;
  for (size_t node = 0; node < model.graph.nodes.size(); ++node) {
    for (const ParameterSpec& spec : Parameters(model.graph, node)) {
      std::vector<float>& values = all[spec.name];
      values.resize(spec.elements());
      const Slice whole{.rows = spec.rows, .columns = spec.columns};
      EXPECT_TRUE(model.parameters->Read(StateKind::kParameter, spec.name, whole, absl::MakeSpan(values)).ok());
    }
  }
  return all;
}

std::string EmptyPlace(const std::string& name) {
  const std::string path = absl::StrCat(::testing::TempDir(), "/writer_test_", name);
  std::filesystem::remove_all(path);
  return path;
}

class Written : public ::testing::TestWithParam<std::tuple<const char*, int64_t>> {};

TEST_P(Written, FolderOpensAsTheSameModel) {
  const auto& [name, shard_bytes] = GetParam();
  const auto model = OpenModel(absl::StrCat("tests/golden/models/", name));
  ASSERT_TRUE(model.ok()) << model.status();
  const std::string folder = EmptyPlace("same");
  const absl::Status written = WriteHuggingFaceFolder(*model, folder, {.shard_bytes = shard_bytes});
  ASSERT_TRUE(written.ok()) << written;
  const auto again = OpenModel(folder);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->graph, model->graph);
  EXPECT_EQ(again->end_tokens, model->end_tokens);
  EXPECT_EQ(Parameters(*again), Parameters(*model));
  EXPECT_EQ(std::filesystem::exists(folder + "/model.safetensors"), shard_bytes > 1000000);
}

// What other programs look for, by the files of a folder that transformers wrote.
class LikeTheReference : public ::testing::TestWithParam<const char*> {};

TEST_P(LikeTheReference, TensorsHaveItsNamesAndShapesAndTheConfigurationItsValues) {
  const std::string reference = absl::StrCat("tests/golden/models/", GetParam());
  const std::string folder = EmptyPlace("names");
  ASSERT_TRUE(WriteHuggingFaceFolder(*OpenModel(reference), folder, {.shard_bytes = 3000}).ok());
  const auto shapes = [](const std::string& of) {
    std::map<std::string, std::vector<int64_t>> found;
    for (const auto& entry : std::filesystem::directory_iterator(of)) {
      if (entry.path().extension() != ".safetensors") continue;
      const auto file = SafetensorsFile::Open(entry.path());
      EXPECT_TRUE(file.ok()) << file.status();
      for (const StoredTensor& tensor : file->tensors()) found[tensor.name] = tensor.shape;
    }
    return found;
  };
  EXPECT_EQ(shapes(folder), shapes(reference));
  // All that the reference's config.json says and ours says too is the same.
  const auto config = [](const std::string& of) { return nlohmann::json::parse(std::ifstream(of + "/config.json")); };
  const nlohmann::json ours = config(folder), theirs = config(reference);
  for (const auto& [key, value] : ours.items()) {
    if (theirs.contains(key) && !theirs[key].is_null() && key != "architectures" && key != "bos_token_id") {
      EXPECT_TRUE(theirs[key] == value || (value.is_number() && value.get<float>() == theirs[key].get<float>()))
          << key << ": " << value << " and " << theirs[key];
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, LikeTheReference, ::testing::Values("gpt2", "llama", "llama3"),
                         [](const auto& info) { return std::string(info.param); });

INSTANTIATE_TEST_SUITE_P(All, Written,
                         ::testing::Combine(::testing::Values("gpt2", "llama", "llama3", "llama.gguf", "gpt2.gguf"),
                                            ::testing::Values(int64_t{1} << 32, 3000)),
                         [](const auto& info) {
                           std::string name = absl::StrCat(std::get<0>(info.param), "_", std::get<1>(info.param));
                           std::replace(name.begin(), name.end(), '.', '_');
                           return name;
                         });

TEST(Writer, LeavesWhatIsThereAndNothingHalfDone) {
  const auto model = OpenModel("tests/golden/models/gpt2");
  ASSERT_TRUE(model.ok());
  const std::string folder = EmptyPlace("there");
  std::filesystem::create_directories(folder);
  EXPECT_EQ(WriteHuggingFaceFolder(*model, folder).code(), absl::StatusCode::kAlreadyExists);
  std::filesystem::remove_all(folder);
  int steps = 0;
  const auto write = [&](int fail_at) {
    steps = 0;
    return WriteHuggingFaceFolder(
        *model, folder, {.shard_bytes = 3000, .disk = Disk([&, fail_at](absl::string_view) {
                                                return ++steps == fail_at ? absl::ResourceExhaustedError("full")
                                                                          : absl::OkStatus();
                                              })});
  };
  ASSERT_TRUE(write(-1).ok());
  std::filesystem::remove_all(folder);
  for (int step = 1, all = steps; step <= all; ++step) {
    const absl::Status failed = write(step);
    if (failed.ok()) continue;  // a step whose failure is no one's loss
    EXPECT_FALSE(std::filesystem::exists(folder)) << "step " << step;
  }
}

TEST(Writer, CopiesTheTokenizer) {
  auto model = OpenModel("tests/golden/models/gpt2");
  ASSERT_TRUE(model.ok());
  const std::string from = EmptyPlace("tokenizer"), folder = EmptyPlace("copied");
  std::filesystem::create_directories(from);
  std::filesystem::copy_file("tests/golden/tokenizer/gpt2.json", from + "/tokenizer.json");
  std::ofstream(from + "/tokenizer_config.json") << R"({"chat_template": "x"})";
  ASSERT_TRUE(WriteHuggingFaceFolder(*model, folder, {.tokenizer_from = from}).ok());
  for (const char* name : {"/tokenizer.json", "/tokenizer_config.json"}) {
    const auto text = [&](const std::string& of) {
      std::ifstream file(of + name);
      return std::string(std::istreambuf_iterator<char>(file), {});
    };
    EXPECT_EQ(text(folder), text(from));
  }
}

TEST(Writer, WritesTheTokenizerOfAGguf) {
  const auto model = OpenModel("tests/golden/models/llama.gguf");
  ASSERT_TRUE(model.ok());
  const std::string folder = EmptyPlace("of_gguf");
  ASSERT_TRUE(WriteHuggingFaceFolder(*model, folder).ok());
  const auto again = OpenModel(folder);
  ASSERT_TRUE(again.ok()) << again.status();
  ASSERT_NE(again->tokenizer, nullptr) << again->no_tokenizer;
  EXPECT_EQ(again->tokenizer->parts(), model->tokenizer->parts());
  EXPECT_EQ(again->chat_template, model->chat_template);
}

TEST(Writer, SaysWhichModelsOthersDoNotHave) {
  PretrainedModel model{.graph = *MlpGraph({})};
  EXPECT_THAT(WriteHuggingFaceFolder(model, EmptyPlace("mlp")).ToString(), HasSubstr("gpt2 and llama"));
  model.graph = *Gpt2Graph({.layers = 1, .channels = 8, .heads = 2, .vocabulary = 9, .positions = 8, .bias = false});
  EXPECT_THAT(WriteHuggingFaceFolder(model, EmptyPlace("bias")).ToString(), HasSubstr("without biases"));
  model.graph = *Gpt2Graph({.layers = 2, .channels = 8, .heads = 2, .vocabulary = 9, .positions = 8});
  model.graph.nodes[4].width = 12;
  EXPECT_THAT(WriteHuggingFaceFolder(model, EmptyPlace("odd")).ToString(), HasSubstr("h.1.mlp"));
}

}  // namespace
}  // namespace sluice
