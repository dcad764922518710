// Where parameters come from in place of their initialization: a checkpoint, a folder of Hugging Face's, a GGUF file.
//
// Threads: any, at the same time. What is read stays as it is for as long as the source lives.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "stages/graph.h"
#include "stages/parameters.h"

namespace sluice {

class ParameterSource {
 public:
  virtual ~ParameterSource() = default;

  // Whether it has all of the graph's parameters, and no others. INVALID_ARGUMENT, NOT_FOUND: the tensor that is
  // missing, has another shape or is not the graph's. Cheap: looks at no values. REQUIRES: a valid graph.
  virtual absl::Status Check(const LayerGraph& graph) const = 0;

  // The block of the complete tensor `name`, row by row, as f32. Touches little more of the file than the block.
  // NOT_FOUND: there is no such tensor or state of it. INVALID_ARGUMENT: it has no such block, or not all of it is
  // there. DATA_LOSS: its bytes are not those that were written. REQUIRES: out.size() == block.elements().
  virtual absl::Status Read(StateKind kind, absl::string_view name, const Slice& block,
                            absl::Span<float> out) const = 0;
};

}  // namespace sluice
