// A model as a folder that Hugging Face's transformers opens: config.json, safetensors, and what there is of a
// tokenizer.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "runtime/checkpoint/disk.h"
#include "runtime/models/model.h"

namespace sluice {

struct FolderOptions {
  int64_t shard_bytes = 5'000'000'000;  // a file holds at least one tensor, and more up to this
  std::string tokenizer_from;           // a folder whose tokenizer files are copied, if it has a tokenizer.json; else
                                        // the model's tokenizer is written
  Disk disk = {};
};

// Writes the parameters as F32. Beside, then renamed: the folder is there whole or not at all. ALREADY_EXISTS: it is
// there. INVALID_ARGUMENT: the graph is none that transformers has, and what of it differs. Errors of the source pass
// through.
absl::Status WriteHuggingFaceFolder(const PretrainedModel& model, const std::string& folder,
                                    const FolderOptions& options = {});

}  // namespace sluice
