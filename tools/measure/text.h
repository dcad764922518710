// Benchmarks for people: pure functions from plain values to tables.
#pragma once

#include <string>
#include <vector>

#include "absl/types/span.h"
#include "tools/measure/compare.h"
#include "tools/measure/result.h"

namespace sluice::tools {

// What was measured, the step beside its floor, and the operations.
std::string ToText(const BenchResult& result);
// The matrix products, each with the rates of its shape.
std::string ShapesToText(const BenchResult& result);
std::string ToText(absl::Span<const Change> changes);

}  // namespace sluice::tools
