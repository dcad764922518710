#include "runtime/models/hugging_face.h"

#include <filesystem>
#include <set>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status.h"
#include "nlohmann/json.hpp"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/data/mapped_file.h"
#include "runtime/models/hugging_face_config.h"
#include "runtime/models/stored_parameters.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

constexpr char kWhole[] = "model.safetensors";
constexpr char kIndex[] = "model.safetensors.index.json";

bool Exists(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

// Empty if there is no such file.
absl::StatusOr<std::string> ReadText(const std::string& path) {
  if (!Exists(path)) return std::string();
  ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  return std::string(file.text());
}

// The names of the files that have the tensors.
absl::StatusOr<std::set<std::string>> TensorFiles(const std::string& folder) {
  if (Exists(absl::StrCat(folder, "/", kWhole))) return std::set<std::string>{kWhole};
  const std::string path = absl::StrCat(folder, "/", kIndex);
  if (!Exists(path)) {
    return absl::NotFoundError(absl::StrCat(folder, ": there is neither ", kWhole, " nor ", kIndex,
                                            "; older formats (pytorch_model.bin) are not supported"));
  }
  ASSIGN_OR_RETURN(const std::string text, ReadText(path));
  const Json root = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto wrong = [&](absl::string_view what) { return absl::InvalidArgumentError(absl::StrCat(path, ": ", what)); };
  const auto map = root.is_object() ? root.find("weight_map") : root.end();
  if (!root.is_object() || map == root.end() || !map->is_object()) return wrong("there is no weight_map");
  std::set<std::string> files;
  for (const Json& file : *map) {
    if (!file.is_string()) return wrong("weight_map names something that is no file");
    const auto& name = file.get_ref<const std::string&>();
    if (name.find('/') != std::string::npos || !absl::EndsWith(name, ".safetensors")) {
      return wrong(absl::StrCat("weight_map names '", name, "', which is no .safetensors file of this folder"));
    }
    files.insert(name);
  }
  return files;
}

absl::StatusOr<Encoding> EncodingOf(const StoredTensor& tensor) {
  switch (tensor.type) {
    case StoredType::kF32:
      return Encoding::kF32;
    case StoredType::kF16:
      return Encoding::kF16;
    case StoredType::kBF16:
      return Encoding::kBF16;
    default:
      return absl::UnimplementedError(absl::StrCat("the tensor '", tensor.name, "' is stored as ", Name(tensor.type),
                                                   "; F32, F16 and BF16 are supported"));
  }
}

// Models that were saved without their head leave out the name of what is around the blocks.
std::string FullName(const std::string& name, absl::string_view around) {
  const bool full = absl::StartsWith(name, around) || absl::StartsWith(name, "lm_head.");
  return full ? name : absl::StrCat(around, name);
}

struct Tensors {
  EncodedTensors by_name;
  std::shared_ptr<const void> files;
};
absl::StatusOr<Tensors> OpenTensors(const std::string& folder, absl::string_view around) {
  ASSIGN_OR_RETURN(const std::set<std::string> names, TensorFiles(folder));
  auto files = std::make_shared<std::vector<SafetensorsFile>>();
  Tensors tensors;
  for (const std::string& name : names) {
    ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(absl::StrCat(folder, "/", name)));
    for (const StoredTensor& tensor : file.tensors()) {
      if (IsDerivedTensor(tensor.name)) continue;
      const auto encoding = EncodingOf(tensor);
      if (!encoding.ok()) return Annotate(encoding.status(), file.path());
      EncodedTensor encoded{tensor.shape, *encoding, tensor.bytes.data()};
      if (!tensors.by_name.emplace(FullName(tensor.name, around), std::move(encoded)).second) {
        return absl::InvalidArgumentError(absl::StrCat(file.path(), ": a second tensor '", tensor.name, "'"));
      }
    }
    files->push_back(std::move(file));
  }
  tensors.files = std::move(files);
  return tensors;
}

// Either a text, or of several, each with a name, that called "default".
absl::StatusOr<std::string> ReadChatTemplate(const std::string& folder) {
  ASSIGN_OR_RETURN(const std::string own, ReadText(folder + "/chat_template.jinja"));
  if (!own.empty()) return own;
  ASSIGN_OR_RETURN(const std::string text, ReadText(folder + "/tokenizer_config.json"));
  const Json root = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto found = root.is_object() ? root.find("chat_template") : root.end();
  if (!root.is_object() || found == root.end()) return std::string();
  if (found->is_string()) return found->get<std::string>();
  for (const Json& named : *found) {
    if (!named.is_object() || named.value("name", Json()) != "default") continue;
    if (const auto chosen = named.find("template"); chosen != named.end() && chosen->is_string())
      return chosen->get<std::string>();
  }
  return std::string();
}

absl::Status ReadTokenizer(const std::string& folder, PretrainedModel* model) {
  ASSIGN_OR_RETURN(model->chat_template, ReadChatTemplate(folder));
  if (!Exists(folder + "/tokenizer.json")) {
    model->no_tokenizer = absl::StrCat(folder, " has no tokenizer.json");
    return absl::OkStatus();
  }
  auto tokenizer = Tokenizer::Open(folder);
  if (tokenizer.ok()) {
    model->tokenizer = std::make_shared<const Tokenizer>(*std::move(tokenizer));
  } else if (absl::IsUnimplemented(tokenizer.status())) {
    model->no_tokenizer = std::string(tokenizer.status().message());
  } else {
    return tokenizer.status();
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PretrainedModel> OpenHuggingFaceFolder(const std::string& folder) {
  const std::string config_path = folder + "/config.json";
  ASSIGN_OR_RETURN(const MappedFile text, MappedFile::Open(config_path));
  auto config = ParseHuggingFaceConfig(text.text());
  if (!config.ok()) return Annotate(config.status(), config_path);
  PretrainedModel model{.graph = std::move(config->graph), .end_tokens = std::move(config->end_tokens)};
  ASSIGN_OR_RETURN(const std::string generation, ReadText(folder + "/generation_config.json"));
  if (auto ends = ParseEndTokens(generation); !ends.empty()) model.end_tokens = std::move(ends);

  const bool gpt2 = model.graph.nodes.front().naming == Naming::kGpt2;
  ASSIGN_OR_RETURN(Tensors tensors, OpenTensors(folder, gpt2 ? "transformer." : "model."));
  auto parameters = StoredParameterSource::Create(model.graph, ModelFormat::kHuggingFace, std::move(tensors.by_name),
                                                  std::move(tensors.files));
  if (!parameters.ok()) return Annotate(parameters.status(), folder);
  model.parameters = *std::move(parameters);
  RETURN_IF_ERROR(ReadTokenizer(folder, &model));
  return model;
}

}  // namespace sluice
