#include "runtime/models/hugging_face_writer.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status.h"
#include "nlohmann/json.hpp"
#include "runtime/checkpoint/safetensors_writer.h"
#include "runtime/data/mapped_file.h"
#include "runtime/models/hugging_face_config.h"
#include "runtime/models/names.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

constexpr const char* kTokenizerFiles[] = {"tokenizer.json",
                                           "tokenizer_config.json",
                                           "special_tokens_map.json",
                                           "generation_config.json",
                                           "chat_template.jinja",
                                           "tokenizer.model",
                                           "vocab.json",
                                           "merges.txt"};
constexpr int64_t kBlockElements = int64_t{1} << 20;  // that are read at a time

// One tensor to be written.
struct Tensor {
  const StoredParameter* parameter;
  const StoredPart* part;
  int64_t begin;  // of its outputs among the parameter's

  std::vector<int64_t> shape() const { return parameter->StoredShape(*part); }
  int64_t bytes() const { return 4 * part->outputs * parameter->inputs; }
};

std::vector<Tensor> TensorsOf(const std::vector<StoredParameter>& parameters) {
  std::vector<Tensor> tensors;
  for (const StoredParameter& parameter : parameters) {
    int64_t begin = 0;
    for (const StoredPart& part : parameter.parts) {
      tensors.push_back({&parameter, &part, begin});
      begin += part.outputs;
    }
  }
  return tensors;
}

// As many tensors to a file as it has room for: where each file begins.
std::vector<size_t> CutIntoFiles(const std::vector<Tensor>& tensors, int64_t shard_bytes) {
  std::vector<size_t> begins = {0};
  int64_t bytes = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (i > begins.back() && bytes + tensors[i].bytes() > shard_bytes) begins.push_back(i), bytes = 0;
    bytes += tensors[i].bytes();
  }
  return begins;
}

absl::Status WriteBytes(const Disk& disk, const std::string& path, absl::string_view text) {
  ASSIGN_OR_RETURN(const int file, disk.CreateFile(path));
  const absl::Status written = disk.Write(file, path, {reinterpret_cast<const std::byte*>(text.data()), text.size()});
  const absl::Status closed = disk.SyncAndClose(file, path);
  return written.ok() ? closed : written;
}

class FolderWriter {
 public:
  FolderWriter(const PretrainedModel& model, std::string folder, const FolderOptions& options)
      : model_(model), folder_(std::move(folder)), options_(options) {}

  absl::Status Write() {
    ASSIGN_OR_RETURN(const std::string config, ToHuggingFaceConfig({model_.graph, model_.end_tokens}));
    RETURN_IF_ERROR(WriteBytes(options_.disk, Path("config.json"), config));
    RETURN_IF_ERROR(WriteTensors());
    return WriteTokenizer();
  }

 private:
  std::string Path(absl::string_view name) const { return absl::StrCat(folder_, "/", name); }

  absl::Status WriteTensors() const {
    ASSIGN_OR_RETURN(const std::vector<StoredParameter> parameters,
                     StoredParameters(model_.graph, ModelFormat::kHuggingFace));
    const std::vector<Tensor> tensors = TensorsOf(parameters);
    const std::vector<size_t> begins = CutIntoFiles(tensors, options_.shard_bytes);
    if (begins.size() == 1) return WriteFile("model.safetensors", tensors);
    nlohmann::json index = {{"weight_map", nlohmann::json::object()}};
    int64_t total = 0;
    for (size_t i = 0; i < begins.size(); ++i) {
      const size_t end = i + 1 < begins.size() ? begins[i + 1] : tensors.size();
      const std::string name = absl::StrFormat("model-%05d-of-%05d.safetensors", i + 1, begins.size());
      const absl::Span<const Tensor> part = absl::MakeConstSpan(tensors).subspan(begins[i], end - begins[i]);
      RETURN_IF_ERROR(WriteFile(name, part));
      for (const Tensor& tensor : part) index["weight_map"][tensor.part->name] = name, total += tensor.bytes();
    }
    index["metadata"] = {{"total_size", total}};
    return WriteBytes(options_.disk, Path("model.safetensors.index.json"), index.dump(2) + "\n");
  }

  absl::Status WriteFile(const std::string& name, absl::Span<const Tensor> tensors) const {
    std::vector<TensorHeader> headers;
    for (const Tensor& tensor : tensors) {
      headers.push_back({.name = tensor.part->name, .type = StoredType::kF32, .shape = tensor.shape()});
    }
    // transformers asks which program's conventions a file follows.
    ASSIGN_OR_RETURN(const auto writer,
                     SafetensorsWriter::Create(Path(name), headers, {{"format", "pt"}}, options_.disk));
    for (const Tensor& tensor : tensors) RETURN_IF_ERROR(WriteTensor(tensor, writer.get()));
    return writer->Finish().status();
  }

  absl::Status WriteTensor(const Tensor& tensor, SafetensorsWriter* writer) const {
    const bool transposed = tensor.part->form == StoredPart::Form::kTransposed;
    const int64_t rows = transposed ? tensor.parameter->inputs : tensor.part->outputs;  // as stored
    const int64_t columns = transposed ? tensor.part->outputs : tensor.parameter->inputs;
    const int64_t at_once = std::max<int64_t>(1, kBlockElements / columns);
    std::vector<float> values, turned;
    for (int64_t row = 0; row < rows; row += at_once) {
      const int64_t count = std::min(at_once, rows - row);
      values.resize(count * columns);
      const Slice block =
          transposed ? OutputsOf(tensor, 0, columns, row, count) : OutputsOf(tensor, row, count, 0, columns);
      RETURN_IF_ERROR(
          model_.parameters->Read(StateKind::kParameter, tensor.parameter->name, block, absl::MakeSpan(values)));
      if (transposed) {
        turned.resize(values.size());
        for (int64_t output = 0; output < columns; ++output) {
          for (int64_t i = 0; i < count; ++i) turned[i * columns + output] = values[output * count + i];
        }
        values.swap(turned);
      }
      RETURN_IF_ERROR(writer->Add(values));
    }
    return absl::OkStatus();
  }

  // Of the parameter: a vector is one row.
  static Slice OutputsOf(const Tensor& tensor, int64_t output, int64_t outputs, int64_t input, int64_t inputs) {
    if (tensor.parameter->vector) return {.column = tensor.begin + output, .rows = 1, .columns = outputs};
    return {.row = tensor.begin + output, .column = input, .rows = outputs, .columns = inputs};
  }

  // The files that there are, or what the model's own tokenizer says.
  absl::Status WriteTokenizer() const {
    std::error_code ignored;
    if (fs::exists(absl::StrCat(options_.tokenizer_from, "/tokenizer.json"), ignored)) return CopyTokenizer();
    if (model_.tokenizer == nullptr) return absl::OkStatus();
    RETURN_IF_ERROR(WriteBytes(options_.disk, Path("tokenizer.json"), FormatTokenizerJson(model_.tokenizer->parts())));
    nlohmann::json config = {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"clean_up_tokenization_spaces", false}};
    if (!model_.chat_template.empty()) config["chat_template"] = model_.chat_template;
    if (!model_.end_tokens.empty()) {
      std::string end;
      model_.tokenizer->AppendBytes(model_.end_tokens.front(), &end);
      config["eos_token"] = end;
    }
    using ErrorHandler = nlohmann::json::error_handler_t;
    return WriteBytes(options_.disk, Path("tokenizer_config.json"),
                      config.dump(2, ' ', false, ErrorHandler::replace) + "\n");
  }

  absl::Status CopyTokenizer() const {
    for (const char* name : kTokenizerFiles) {
      const std::string from = absl::StrCat(options_.tokenizer_from, "/", name);
      std::error_code ignored;
      if (!fs::exists(from, ignored)) continue;
      ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(from));
      RETURN_IF_ERROR(WriteBytes(options_.disk, Path(name), file.text()));
    }
    return absl::OkStatus();
  }

  const PretrainedModel& model_;
  const std::string folder_;
  const FolderOptions& options_;
};

}  // namespace

absl::Status WriteHuggingFaceFolder(const PretrainedModel& model, const std::string& folder,
                                    const FolderOptions& options) {
  std::error_code ignored;
  if (fs::exists(folder, ignored)) {
    return absl::AlreadyExistsError(absl::StrCat(folder, " is there already; name another folder"));
  }
  const std::string beside = absl::StrCat(folder, ".partial-", getpid());
  RETURN_IF_ERROR(options.disk.MakeFolder(beside));
  absl::Cleanup remove = [&] { options.disk.Remove(beside).IgnoreError(); };
  RETURN_IF_ERROR(FolderWriter(model, beside, options).Write());
  RETURN_IF_ERROR(options.disk.SyncFolder(beside));
  RETURN_IF_ERROR(options.disk.Rename(beside, folder));
  std::move(remove).Cancel();
  return absl::OkStatus();
}

}  // namespace sluice
