// Folders of models as Hugging Face's transformers writes and reads them.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "runtime/models/model.h"

namespace sluice {

// config.json, model.safetensors or the files of model.safetensors.index.json, and, where there are any,
// tokenizer.json, tokenizer_config.json, chat_template.jinja and generation_config.json. Errors name the file.
absl::StatusOr<PretrainedModel> OpenHuggingFaceFolder(const std::string& folder);

}  // namespace sluice
