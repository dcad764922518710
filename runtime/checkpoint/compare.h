// What differs between two checkpoints, tensor by tensor.
//
// Threads: one. Memory: a few MiB, whatever the model's size.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/checkpoint/checkpoint.h"

namespace sluice {

struct TensorDifference {
  StateKind kind = StateKind::kParameter;
  std::string name;
  // Why the values can't be compared: "only in A", "[2, 3] and [4, 3]"; empty: they were.
  std::string apart;
  int64_t elements = 0;
  int64_t differing = 0;        // elements whose bits differ
  double largest = 0;           // |a - b|; infinite where one of them is no number
  int64_t row = 0, column = 0;  // of the largest
  double relative = 0;          // root mean square of a - b over that of a
};

// Every tensor of either, the largest differences first. Errors: as reading.
absl::StatusOr<std::vector<TensorDifference>> Compare(const Checkpoint& a, const Checkpoint& b);

}  // namespace sluice
