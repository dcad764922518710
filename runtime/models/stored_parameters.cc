#include "runtime/models/stored_parameters.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status.h"

namespace sluice {
namespace {

std::string ShapeText(absl::Span<const int64_t> shape) { return absl::StrCat("[", absl::StrJoin(shape, ", "), "]"); }

// Takes the tensor of this name out.
absl::StatusOr<EncodedTensor> Take(const std::string& name, const std::vector<int64_t>& shape,
                                   EncodedTensors* tensors) {
  const auto found = tensors->find(name);
  if (found == tensors->end()) {
    return absl::NotFoundError(absl::StrCat("the tensor '", name, "' ", ShapeText(shape), " is missing"));
  }
  if (found->second.shape != shape) {
    return absl::InvalidArgumentError(absl::StrCat("the tensor '", name, "' is ", ShapeText(found->second.shape),
                                                   ", and should be ", ShapeText(shape), " by the model's sizes"));
  }
  EncodedTensor tensor = std::move(found->second);
  tensors->erase(found);
  return tensor;
}

// What is left over must be without a meaning for the model.
absl::Status CheckRest(const LayerGraph& graph, const EncodedTensors& rest) {
  const bool tied = !graph.nodes.back().tied_to.empty();
  for (const auto& [name, tensor] : rest) {
    if (IsDerivedTensor(name) || (tied && name == "lm_head.weight")) continue;
    return absl::UnimplementedError(
        absl::StrCat("the tensor '", name, "' ", ShapeText(tensor.shape),
                     " is none of a model of this type; supported are the types gpt2 and llama, without more"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::shared_ptr<const StoredParameterSource>> StoredParameterSource::Create(
    const LayerGraph& graph, ModelFormat format, EncodedTensors tensors, std::shared_ptr<const void> files) {
  ASSIGN_OR_RETURN(std::vector<StoredParameter> stored, StoredParameters(graph, format));
  auto source = std::make_shared<StoredParameterSource>();
  for (StoredParameter& parameter : stored) {
    Parameter made{.stored = parameter};
    int64_t begin = 0;
    for (const StoredPart& part : parameter.parts) {
      ASSIGN_OR_RETURN(EncodedTensor tensor, Take(part.name, parameter.StoredShape(part), &tensors));
      made.parts.push_back({part, begin, std::move(tensor)});
      begin += part.outputs;
    }
    source->parameters_.emplace(parameter.name, std::move(made));
  }
  RETURN_IF_ERROR(CheckRest(graph, tensors));
  source->files_ = std::move(files);
  return source;
}

absl::Status StoredParameterSource::Check(const LayerGraph& graph) const {
  size_t found = 0;
  ASSIGN_OR_RETURN(const std::vector<StoredParameter> wanted, StoredParameters(graph, ModelFormat::kHuggingFace));
  for (const StoredParameter& parameter : wanted) {
    const auto place = parameters_.find(parameter.name);
    if (place == parameters_.end()) {
      return absl::NotFoundError(absl::StrCat("the model has no parameter \"", parameter.name, "\""));
    }
    const StoredParameter& stored = place->second.stored;
    if (stored.outputs != parameter.outputs || stored.inputs != parameter.inputs) {
      return absl::InvalidArgumentError(absl::StrCat("the model's parameter \"", parameter.name, "\" is ",
                                                     stored.outputs, " x ", stored.inputs, ", and should be ",
                                                     parameter.outputs, " x ", parameter.inputs));
    }
    ++found;
  }
  if (found == parameters_.size()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the model has ", parameters_.size(), " parameters, the graph ", found));
}

absl::Status StoredParameterSource::Read(StateKind kind, absl::string_view name, const Slice& slice,
                                         absl::Span<float> out) const {
  const auto found = parameters_.find(name);
  if (kind != StateKind::kParameter || found == parameters_.end()) {
    return absl::NotFoundError(absl::StrCat(
        "the model has no ", kind == StateKind::kParameter ? "parameter" : "optimizer state", " of \"", name, "\""));
  }
  const StoredParameter& stored = found->second.stored;
  // A vector is one row, whose elements are its outputs.
  const Block block = stored.vector ? Block{slice.column, slice.columns, 0, 1}
                                    : Block{slice.row, slice.rows, slice.column, slice.columns};
  const bool inside = block.output >= 0 && block.outputs >= 0 && block.output <= stored.outputs - block.outputs &&
                      block.input >= 0 && block.inputs >= 0 && block.input <= stored.inputs - block.inputs;
  if (!inside || (stored.vector && (slice.row != 0 || slice.rows != 1))) {
    return absl::InvalidArgumentError(absl::StrCat("\"", name, "\" has no such block"));
  }
  for (const Part& part : found->second.parts) {
    const int64_t begin = std::max(block.output, part.begin);
    const int64_t end = std::min(block.output + block.outputs, part.begin + part.place.outputs);
    if (begin >= end) continue;
    ReadPart(part, {begin - part.begin, end - begin, block.input, block.inputs},
             out.data() + (begin - block.output) * block.inputs);
  }
  return absl::OkStatus();
}

void StoredParameterSource::ReadPart(const Part& part, const Block& block, float* out) {
  if (part.place.form == StoredPart::Form::kTransposed) return ReadTransposed(part, block, out);
  const EncodedTensor& tensor = part.tensor;
  const bool vector = tensor.shape.size() == 1;
  const int64_t row_bytes = vector ? 0 : StoredBytes(tensor.encoding, tensor.shape[1]);
  for (int64_t i = 0; i < block.outputs; ++i) {
    const int64_t row = part.place.StoredOutput(block.output + i);
    Decode(tensor.encoding, tensor.data + row * row_bytes, vector ? row : block.input,
           absl::MakeSpan(out + i * block.inputs, static_cast<size_t>(block.inputs)));
  }
}

// A few outputs at a time, so that what is written stays in the cache until its rows are full.
void StoredParameterSource::ReadTransposed(const Part& part, const Block& block, float* out) {
  constexpr int64_t kAtOnce = 64;
  const EncodedTensor& tensor = part.tensor;
  const int64_t row_bytes = StoredBytes(tensor.encoding, tensor.shape[1]);
  for (int64_t begin = 0; begin < block.outputs; begin += kAtOnce) {
    const int64_t count = std::min(kAtOnce, block.outputs - begin);
    for (int64_t input = 0; input < block.inputs; ++input) {
      float values[kAtOnce];
      Decode(tensor.encoding, tensor.data + (block.input + input) * row_bytes, block.output + begin,
             absl::MakeSpan(values, static_cast<size_t>(count)));
      for (int64_t i = 0; i < count; ++i) out[(begin + i) * block.inputs + input] = values[i];
    }
  }
}

}  // namespace sluice
