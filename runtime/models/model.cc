#include "runtime/models/model.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/data/mapped_file.h"
#include "runtime/models/gguf_model.h"
#include "runtime/models/hugging_face.h"
#include "runtime/models/stored_parameters.h"

namespace sluice {
namespace {

absl::StatusOr<PretrainedModel> FromGguf(std::shared_ptr<const MappedFile> file) {
  ASSIGN_OR_RETURN(const Gguf gguf, Gguf::Parse(file->text()));
  PretrainedModel model{.chat_template = std::string(gguf.Text("tokenizer.chat_template").value_or("")),
                        .end_tokens = EndTokensOf(gguf)};
  ASSIGN_OR_RETURN(model.graph, GraphOf(gguf));
  EncodedTensors tensors;
  for (const auto& [name, tensor] : gguf.tensors())
    tensors.emplace(name, EncodedTensor{tensor.shape, tensor.encoding, tensor.data});
  ASSIGN_OR_RETURN(model.parameters,
                   StoredParameterSource::Create(model.graph, ModelFormat::kGguf, std::move(tensors), std::move(file)));
  if (auto parts = TokenizerPartsOf(gguf); parts.ok()) {
    ASSIGN_OR_RETURN(Tokenizer tokenizer, Tokenizer::Create(*std::move(parts)));
    model.tokenizer = std::make_shared<const Tokenizer>(std::move(tokenizer));
  } else {
    model.no_tokenizer = std::string(parts.status().message());
  }
  return model;
}

// What a byte means is known without a tokenizer.
constexpr int64_t kByteVocabulary = 256;

absl::StatusOr<PretrainedModel> FromCheckpoint(const std::string& path) {
  ASSIGN_OR_RETURN(std::shared_ptr<const Checkpoint> checkpoint, Checkpoint::Open(path));
  PretrainedModel model;
  ASSIGN_OR_RETURN(model.graph, checkpoint->Graph());
  RETURN_IF_ERROR(checkpoint->Check(model.graph));
  if (model.graph.vocabulary == kByteVocabulary) {
    model.tokenizer = std::make_shared<const Tokenizer>(Tokenizer::Bytes());
  } else {
    model.no_tokenizer =
        absl::StrCat(checkpoint->path(), " is a checkpoint, which has none; `sluice checkpoint convert ",
                     checkpoint->path(), " --to hf --tokenizer MODEL -o FOLDER` gives it one");
  }
  model.parameters = std::move(checkpoint);
  return model;
}

absl::StatusOr<PretrainedModel> Open(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    const bool hugging_face = std::filesystem::exists(path + "/config.json", ignored);
    return hugging_face ? OpenHuggingFaceFolder(path) : FromCheckpoint(path);
  }
  ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  auto model = FromGguf(std::make_shared<const MappedFile>(std::move(file)));
  if (!model.ok()) return Annotate(model.status(), path);
  return model;
}

absl::Status CheckTokenizer(const PretrainedModel& model) {
  if (model.tokenizer == nullptr || model.tokenizer->vocabulary() <= model.graph.vocabulary) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the tokenizer has ", model.tokenizer->vocabulary(),
                                                 " tokens, the model only ", model.graph.vocabulary));
}

}  // namespace

absl::StatusOr<PretrainedModel> OpenModel(const std::string& path) {
  ASSIGN_OR_RETURN(PretrainedModel model, Open(path));
  model.context = model.graph.max_sequence;
  // Configurations of small models have those of the original ones, which can't occur.
  std::erase_if(model.end_tokens, [&](int32_t end) { return end < 0 || end >= model.graph.vocabulary; });
  RETURN_IF_ERROR(Annotate(CheckTokenizer(model), path));
  return model;
}

absl::StatusOr<Tokenizer> OpenTokenizer(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return Tokenizer::Open(path);
  ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  if (!absl::StartsWith(file.text(), "GGUF")) return Tokenizer::Open(path);
  const auto gguf = Gguf::Parse(file.text());
  if (!gguf.ok()) return Annotate(gguf.status(), path);
  auto parts = TokenizerPartsOf(*gguf);
  if (!parts.ok()) return Annotate(parts.status(), path);
  return Tokenizer::Create(*std::move(parts));
}

}  // namespace sluice
