// The parameters of a layer graph: names, shapes, how they begin, and which part of them a tensor-parallel shard holds.
// Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "stages/graph.h"
#include "stages/tensor_parallel.h"

namespace sluice {

// What there is of a parameter, each with the parameter's shape.
enum class StateKind : uint8_t {
  kParameter,
  kGradient,      // of the step, after FinishGradients; neither clipped nor written
  kFirstMoment,   // AdamW's m ...
  kSecondMoment,  // ... and v
};

// A block of a complete tensor that a shard holds.
struct Slice {
  int64_t row = 0;  // where it begins
  int64_t column = 0;
  int64_t rows = 0;
  int64_t columns = 0;
  // How many shards hold it, which are adjacent, and which of them this one is.
  int holders = 1;
  int holder = 0;
  // Each holder makes a part of its gradient, which is the sum over them; else all holders make the same, whole one.
  bool partial_gradient = false;

  int64_t elements() const { return rows * columns; }
  friend bool operator==(const Slice&, const Slice&) = default;
};

// A parameter, of its global name. A tied weight belongs to several nodes and is listed by each.
struct ParameterSpec {
  enum class Init : uint8_t { kNormal, kOne, kZero };
  std::string name;
  int64_t rows = 0;  // [rows, columns]; outputs x inputs of a linear; a vector has rows 1
  int64_t columns = 0;
  // Rows and columns above are this shard's: the elements of its slices, one after another and each row by row. Of the
  // complete tensor:
  int64_t complete_rows = 0;
  int64_t complete_columns = 0;
  std::vector<Slice> slices;
  Init init = Init::kNormal;
  float deviation = 0;
  bool decay = false;   // AdamW's weight decay: matrices yes, norms and biases no
  bool packed = false;  // a linear's weight, packed for the device once per optimizer step
  bool tied = false;

  int64_t elements() const { return rows * columns; }
  // Those that this shard answers for in sums over all of the model's elements, its first ones: of a slice that several
  // hold, the first holder does.
  int64_t elements_answered_for() const;
  friend bool operator==(const ParameterSpec&, const ParameterSpec&) = default;
};

// In the layer's own order, the names as `node.naming` says; a tied head lists its embedding's table.
// REQUIRES: `graph` is valid and node < graph.nodes.size(); CheckTensorParallel.
std::vector<ParameterSpec> Parameters(const LayerGraph& graph, size_t node, const TensorParallel& tensor = {});

// A parameter of consecutive nodes, and which of its uses in the whole graph they are.
struct StageParameter {
  ParameterSpec spec;  // packed if one of the uses is
  int uses = 1;
  std::vector<int> use_here;                              // ascending
  std::vector<int> layers;                                // of each use here, counted from the first node
  bool answers() const { return use_here.front() == 0; }  // for its norm partials: its first use is here
};
// Each once, in the order of their first uses. REQUIRES: as Parameters, begin <= end.
std::vector<StageParameter> StageParameters(const LayerGraph& graph, size_t begin, size_t end,
                                            const TensorParallel& tensor = {});

// The nodes that use the parameter of this name, in order: one, or more for a tied weight.
std::vector<size_t> NodesWith(const LayerGraph& graph, absl::string_view parameter);

// A weight that several nodes use, and which they are.
struct TiedWeight {
  std::string name;
  std::vector<size_t> nodes;
};
std::vector<TiedWeight> TiedWeights(const LayerGraph& graph);

// A shard's values of a parameter, in the order of its slices.
struct ParameterPart {
  ParameterSpec spec;
  std::vector<float> values;
};
// The complete tensor, row by row, from the parts of all shards. INVALID_ARGUMENT names the parameter and what doesn't
// fit together or is missing.
absl::StatusOr<std::vector<float>> Assemble(absl::Span<const ParameterPart> parts);
// The values of a shard's part. REQUIRES: `complete` has complete_rows x complete_columns elements.
std::vector<float> PartOf(const ParameterSpec& spec, absl::Span<const float> complete);

// Consecutive elements of one slice of a shard's part, counted row by row.
struct PartRange {
  Slice slice;
  int64_t begin = 0;  // in the slice ...
  int64_t count = 0;
  int64_t first = 0;  // ... and in the part
};
// Elements [begin, begin + count) of a shard's part, slice by slice.
std::vector<PartRange> RangesOf(const ParameterSpec& spec, int64_t begin, int64_t count);

// Of distinct parameters: a tied weight counts once.
int64_t ParameterCount(const LayerGraph& graph);

}  // namespace sluice
