// The parameters of a layer graph: names, shapes, how they begin. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "stages/graph.h"

namespace sluice {

// A parameter, of its global name. A tied weight belongs to several nodes and is listed by each.
struct ParameterSpec {
  enum class Init : uint8_t { kNormal, kOne, kZero };
  std::string name;
  int64_t rows = 0;  // [rows, columns]; outputs x inputs of a linear; a vector has rows 1
  int64_t columns = 0;
  Init init = Init::kNormal;
  float deviation = 0;
  bool decay = false;   // AdamW's weight decay: matrices yes, norms and biases no
  bool packed = false;  // a linear's weight, packed for the device once per optimizer step
  bool tied = false;

  int64_t elements() const { return rows * columns; }
  friend bool operator==(const ParameterSpec&, const ParameterSpec&) = default;
};

// In the layer's own order, the names as `node.naming` says; a tied head lists its embedding's table.
// REQUIRES: `graph` is valid and node < graph.nodes.size().
std::vector<ParameterSpec> Parameters(const LayerGraph& graph, size_t node);

// The nodes that use the parameter of this name, in order: one, or more for a tied weight.
std::vector<size_t> NodesWith(const LayerGraph& graph, absl::string_view parameter);

// A weight that several nodes use, and which they are.
struct TiedWeight {
  std::string name;
  std::vector<size_t> nodes;
};
std::vector<TiedWeight> TiedWeights(const LayerGraph& graph);

// Of distinct parameters: a tied weight counts once.
int64_t ParameterCount(const LayerGraph& graph);

}  // namespace sluice
