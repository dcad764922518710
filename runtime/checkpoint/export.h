// Parameters written anew: as one file of whole tensors, or as a checkpoint of one file.
//
// Threads: one. Memory: a few MiB, whatever the model's size.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/parameter_source.h"
#include "stages/graph.h"

namespace sluice {

// Hears of bytes written; null: nobody does.
using ExportProgress = std::function<void(int64_t bytes)>;

// All parameters of the graph as whole tensors under their global names, in order of the layers, f32: one safetensors
// file, there when it is whole. ALREADY_EXISTS: the file is there. REQUIRES: source.Check(graph).
absl::Status ExportSafetensors(const ParameterSource& source, const LayerGraph& graph, const std::string& path,
                               const ExportProgress& progress = nullptr);

// The checkpoint with its optimizer state as one file, in a folder of checkpoints that need not be there. Returns its
// path. ALREADY_EXISTS: that folder has one of this step.
absl::StatusOr<std::string> ExportCheckpoint(const Checkpoint& checkpoint, const std::string& root,
                                             const ExportProgress& progress = nullptr);

}  // namespace sluice
