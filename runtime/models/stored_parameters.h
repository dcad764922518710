// The parameters of a model as tensors of other programs' files: found by their names there, put together and decoded
// as they are read.
//
// Threads: any. Nothing is read but the blocks asked for; what the tensors lie in is kept mapped by `files`.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/checkpoint/parameter_source.h"
#include "runtime/models/encoding.h"
#include "runtime/models/names.h"

namespace sluice {

struct EncodedTensor {
  std::vector<int64_t> shape;  // of one or two axes, if it is a parameter
  Encoding encoding = Encoding::kF32;
  const std::byte* data = nullptr;
};
using EncodedTensors = absl::flat_hash_map<std::string, EncodedTensor>;

class StoredParameterSource final : public ParameterSource {
 public:
  // Errors name the tensor that is missing, has another shape, or is none of the graph's; a tied head's copy of the
  // table may be there. `files` keeps what the tensors point to.
  static absl::StatusOr<std::shared_ptr<const StoredParameterSource>> Create(const LayerGraph& graph,
                                                                             ModelFormat format, EncodedTensors tensors,
                                                                             std::shared_ptr<const void> files);

  absl::Status Check(const LayerGraph& graph) const override;
  // There are only parameters.
  absl::Status Read(StateKind kind, absl::string_view name, const Slice& block, absl::Span<float> out) const override;

 private:
  struct Part {
    StoredPart place;
    int64_t begin = 0;  // of its outputs among the parameter's
    EncodedTensor tensor;
  };
  struct Parameter {
    StoredParameter stored;
    std::vector<Part> parts;
  };
  struct Block {
    int64_t output, outputs, input, inputs;
  };
  static void ReadPart(const Part& part, const Block& block, float* out);
  static void ReadTransposed(const Part& part, const Block& block, float* out);

  absl::flat_hash_map<std::string, Parameter> parameters_;
  std::shared_ptr<const void> files_;
};

}  // namespace sluice
