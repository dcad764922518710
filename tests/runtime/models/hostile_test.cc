// Files that are cut off, changed or made to deceive: an error that names what is wrong, nothing taken on their word.
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "nlohmann/json.hpp"
#include "runtime/models/gguf.h"
#include "runtime/models/gguf_model.h"
#include "runtime/models/hugging_face_config.h"
#include "runtime/models/model.h"

namespace sluice {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string FileText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// A GGUF file, put together number by number.
class Builder {
 public:
  explicit Builder(uint32_t version = 3) { text_ = "GGUF", Number(version); }
  template <class T>
  Builder& Number(T value) {
    text_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  Builder& Text(const std::string& text) { return Number(uint64_t{text.size()}), text_ += text, *this; }
  const std::string& text() const { return text_; }
  std::string ErrorOf() const { return Gguf::Parse(text_).status().ToString(); }

 private:
  std::string text_;
};

TEST(GgufFile, CutOffAnywhereIsAnError) {
  const std::string whole = FileText("tests/golden/models/gpt2.gguf");
  ASSERT_TRUE(Gguf::Parse(whole).ok());
  for (size_t size = 0; size < whole.size(); size += size < 4000 ? 1 : 997) {
    // From memory of just this size, so that a sanitizer sees what is read beyond it.
    const std::vector<char> part(whole.begin(), whole.begin() + static_cast<int64_t>(size));
    ASSERT_FALSE(Gguf::Parse({part.data(), part.size()}).ok()) << size;
  }
}

TEST(GgufFile, ChangedBytesAreReadOrRefused) {
  std::string bytes = FileText("tests/golden/models/llama.gguf");
  const size_t header = bytes.find("blk.0.attn_norm") + 2000;
  std::mt19937 random(1);
  for (int trial = 0; trial < 2000; ++trial) {
    const size_t place = random() % header;
    const char before = bytes[place];
    bytes[place] = static_cast<char>(random());
    if (const auto file = Gguf::Parse(bytes); file.ok()) {
      GraphOf(*file).status().IgnoreError();
      TokenizerPartsOf(*file).status().IgnoreError();
    }
    bytes[place] = before;
  }
}

TEST(GgufFile, SaysWhatItCannotRead) {
  EXPECT_THAT(Gguf::Parse("GGML").status().ToString(), HasSubstr("no GGUF file"));
  EXPECT_THAT(Builder(1).ErrorOf(), AllOf(HasSubstr("version 1"), HasSubstr("2 and 3")));
  EXPECT_THAT(Builder(3u << 24).ErrorOf(), HasSubstr("big-endian"));
  // More tensors, values, elements or letters than the file could have.
  EXPECT_THAT(Builder().Number(uint64_t{1} << 60).Number(uint64_t{0}).ErrorOf(), HasSubstr("bytes follow"));
  EXPECT_THAT(Builder().Number(uint64_t{0}).Number(uint64_t{1} << 60).ErrorOf(), HasSubstr("bytes follow"));
  const auto with_key = [](uint32_t type) {
    return Builder().Number(uint64_t{0}).Number(uint64_t{1}).Text("a.key.that.is.long.enough").Number(type);
  };
  EXPECT_THAT(with_key(9).Number(uint32_t{8}).Number(~uint64_t{0}).ErrorOf(), HasSubstr("'a.key.that.is.long.enough'"));
  EXPECT_THAT(with_key(9).Number(uint32_t{9}).Number(uint64_t{1}).ErrorOf(), HasSubstr("arrays of type 9"));
  EXPECT_THAT(with_key(77).ErrorOf(), HasSubstr("type 77"));
  EXPECT_THAT(with_key(10).Number(~uint64_t{0}).ErrorOf(), HasSubstr("too large"));
}

TEST(GgufFile, TensorsLieWithinTheFile) {
  const auto with = [](std::vector<uint64_t> shape, uint32_t type, uint64_t offset) {
    Builder file;
    file.Number(uint64_t{1}).Number(uint64_t{0}).Text("t").Number(static_cast<uint32_t>(shape.size()));
    for (const uint64_t size : shape) file.Number(size);
    file.Number(type).Number(offset);
    std::string text = file.text() + std::string(200, '\0');
    return Gguf::Parse(text).status().ToString();
  };
  EXPECT_EQ(with({4}, 0, 0), "OK");
  EXPECT_THAT(with({4}, 0, ~uint64_t{0} - 8), HasSubstr("beyond the end"));
  EXPECT_THAT(with({4}, 0, 1 << 20), HasSubstr("beyond the end"));
  EXPECT_THAT(with({uint64_t{1} << 32, uint64_t{1} << 32}, 0, 0), HasSubstr("axis 1"));
  EXPECT_THAT(with({0}, 0, 0), HasSubstr("axis 0"));
  EXPECT_THAT(with({}, 0, 0), HasSubstr("0 axes"));
  EXPECT_THAT(with({33}, 8, 0), AllOf(HasSubstr("33"), HasSubstr("Q8_0")));
  EXPECT_THAT(with({256}, 14, 0), AllOf(HasSubstr("'t'"), HasSubstr("Q6_K"), HasSubstr("Q4_1")));
}

std::string ConfigError(const std::string& model, const std::string& key, const nlohmann::json& value) {
  auto config = nlohmann::json::parse(FileText(absl::StrCat("tests/golden/models/", model, "/config.json")));
  config[key] = value;
  return std::string(ParseHuggingFaceConfig(config.dump()).status().message());
}

TEST(HuggingFaceConfig, NamesWhatIsNotSupported) {
  EXPECT_THAT(ConfigError("gpt2", "model_type", "mamba"), AllOf(HasSubstr("mamba"), HasSubstr("gpt2 and llama")));
  EXPECT_THAT(ConfigError("gpt2", "activation_function", "relu"), AllOf(HasSubstr("relu"), HasSubstr("gelu_new")));
  EXPECT_THAT(ConfigError("gpt2", "n_layer", 1'000'000), HasSubstr("1000000 blocks"));
  EXPECT_THAT(ConfigError("gpt2", "n_embd", -8), HasSubstr("n_embd"));
  EXPECT_THAT(ConfigError("gpt2", "n_embd", 7), HasSubstr("heads 2 must divide channels 7"));
  EXPECT_THAT(ConfigError("llama", "hidden_size", nullptr), HasSubstr("hidden_size is missing"));
  EXPECT_THAT(ConfigError("llama", "hidden_act", "gelu"), HasSubstr("hidden_act 'gelu'"));
  EXPECT_THAT(ConfigError("llama", "rope_parameters", {{"rope_type", "yarn"}}),
              AllOf(HasSubstr("yarn"), HasSubstr("llama3")));
  EXPECT_THAT(ConfigError("llama", "rms_norm_eps", 0), HasSubstr("norm_epsilon"));
  EXPECT_THAT(ConfigError("llama", "tie_word_embeddings", 1), HasSubstr("neither true nor false"));
  EXPECT_FALSE(ParseHuggingFaceConfig("[1, 2").ok());
}

// The older form: rope_theta and rope_scaling apart.
TEST(HuggingFaceConfig, ReadsRopeInBothForms) {
  auto config = nlohmann::json::parse(FileText("tests/golden/models/llama3/config.json"));
  const auto now = ParseHuggingFaceConfig(config.dump());
  ASSERT_TRUE(now.ok()) << now.status();
  config["rope_theta"] = config["rope_parameters"]["rope_theta"];
  config["rope_scaling"] = config["rope_parameters"];
  config["rope_scaling"].erase("rope_theta");
  config.erase("rope_parameters");
  const auto before = ParseHuggingFaceConfig(config.dump());
  ASSERT_TRUE(before.ok()) << before.status();
  EXPECT_EQ(before->graph, now->graph);
}

class Folder : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    for (const auto& entry : std::filesystem::directory_iterator("tests/golden/models/llama")) {
      std::ofstream(folder_ + "/" + entry.path().filename().string(), std::ios::binary) << FileText(entry.path());
    }
  }
  void ChangeJson(const std::string& file, const std::function<void(nlohmann::json&)>& change) {
    auto json = nlohmann::json::parse(FileText(folder_ + "/" + file));
    change(json);
    std::ofstream(folder_ + "/" + file) << json.dump();
  }
  std::string Error() { return std::string(OpenModel(folder_).status().message()); }
  const std::string folder_ = absl::StrCat(::testing::TempDir(), "/hostile_test_folder");
};

TEST_F(Folder, NamesTheTensorThatDoesNotFit) {
  ASSERT_EQ(Error(), "");
  ChangeJson("config.json", [](auto& config) { config["intermediate_size"] = 24; });
  EXPECT_THAT(Error(), AllOf(HasSubstr("gate_proj"), HasSubstr("[20, 8]"), HasSubstr("[24, 8]")));
  ChangeJson("config.json", [](auto& config) { config["intermediate_size"] = 20, config["num_hidden_layers"] = 3; });
  EXPECT_THAT(Error(), AllOf(HasSubstr("model.layers.2."), HasSubstr("missing")));
  ChangeJson("config.json", [](auto& config) { config["num_hidden_layers"] = 1; });
  EXPECT_THAT(Error(), AllOf(HasSubstr("model.layers.1."), HasSubstr("none of a model of this type")));
  ChangeJson("config.json", [](auto& config) {
    config["num_hidden_layers"] = 2, config["eos_token_id"] = {3, 40, -1};
  });
  EXPECT_EQ(OpenModel(folder_)->end_tokens, std::vector<int32_t>{3});
}

TEST_F(Folder, IndexNamesFilesOfTheFolderOnly) {
  ChangeJson("model.safetensors.index.json", [](auto& index) { index["weight_map"]["x"] = "../secret.safetensors"; });
  EXPECT_THAT(Error(), HasSubstr("../secret.safetensors"));
  ChangeJson("model.safetensors.index.json", [](auto& index) { index["weight_map"]["x"] = "missing.safetensors"; });
  EXPECT_THAT(Error(), HasSubstr("missing.safetensors"));
  std::filesystem::remove(folder_ + "/model.safetensors.index.json");
  EXPECT_THAT(Error(), HasSubstr("model.safetensors"));
}

TEST(OpenModelTest, SaysWhereNothingIs) {
  EXPECT_FALSE(OpenModel("/no/such/place").ok());
  EXPECT_FALSE(OpenModel(::testing::TempDir()).ok());
  EXPECT_THAT(OpenModel("tests/golden/models/gpt2/config.json").status().ToString(), HasSubstr("no GGUF file"));
}

}  // namespace
}  // namespace sluice
