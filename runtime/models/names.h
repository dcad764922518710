// Under which names, and in which form, the parameters of a layer graph stand in Hugging Face's folders and in GGUF
// files.
//
// Pure, and one table for both directions: what is read by it is written by it. Ours are the names of Hugging Face's
// modules, but what enters a block is one tensor (qkv_proj, gate_up_proj), and all matrices are [outputs, inputs].
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "stages/graph.h"

namespace sluice {

enum class ModelFormat : uint8_t { kHuggingFace, kGguf };

// A run of a parameter's outputs, which are a matrix' rows and a vector's elements, as one tensor of a file.
struct StoredPart {
  enum class Form : uint8_t {
    kAsOurs,      // [outputs, inputs]; a vector [outputs]
    kTransposed,  // [inputs, outputs]: Hugging Face's Conv1D
    // The rows of each head of D stand in the order 0, D/2, 1, D/2 + 1, ...: llama.cpp turns neighbours (i, i + 1)
    // where our rope (kernels/operations.h), as Hugging Face's, turns (i, i + D/2).
    kInterleaved,
  };
  std::string name;
  int64_t outputs = 0;
  Form form = Form::kAsOurs;
  int64_t head_size = 0;  // D, of kInterleaved

  // Where the tensor has one of its outputs.
  int64_t StoredOutput(int64_t output) const {
    if (form != Form::kInterleaved) return output;
    const int64_t head = output / head_size * head_size, row = output % head_size, half = head_size / 2;
    return head + row % half * 2 + row / half;
  }
};

struct StoredParameter {
  std::string name;  // ours
  bool vector = false;
  int64_t outputs = 0;
  int64_t inputs = 0;             // 1 of a vector
  std::vector<StoredPart> parts;  // one after another they are all outputs

  std::vector<int64_t> StoredShape(const StoredPart& part) const {
    if (vector) return {part.outputs};
    return part.form == StoredPart::Form::kTransposed ? std::vector{inputs, part.outputs}
                                                      : std::vector{part.outputs, inputs};
  }
};

// Each of the graph's parameters once, in order. INVALID_ARGUMENT names the layer that the format has no names for.
absl::StatusOr<std::vector<StoredParameter>> StoredParameters(const LayerGraph& graph, ModelFormat format);

// What files hold beside parameters and can be made again: masks, rotary frequencies.
bool IsDerivedTensor(absl::string_view stored_name);

}  // namespace sluice
