// Layer graphs as files (proto/graph.proto), for people to read and write.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "stages/graph.h"

namespace sluice {

// The text form, with a comment on top; fields that have their default stay out. Reading it gives the same graph.
std::string GraphToText(const LayerGraph& graph);

// Reads and validates. `file` is for errors. Errors: INVALID_ARGUMENT with file:line.
absl::StatusOr<LayerGraph> GraphFromText(absl::string_view text, absl::string_view file);

// GraphFromText of a file.
absl::StatusOr<LayerGraph> LoadGraph(const std::string& path);

}  // namespace sluice
