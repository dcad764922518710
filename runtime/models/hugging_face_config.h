// A config.json of Hugging Face's, to a layer graph and back: model_type gpt2 or llama.
//
// Pure. Whatever would change the numbers and isn't understood is refused by its name.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "stages/graph.h"

namespace sluice {

struct HuggingFaceConfig {
  LayerGraph graph;
  std::vector<int32_t> end_tokens;  // eos_token_id
};

// INVALID_ARGUMENT: a field that isn't what it should be. UNIMPLEMENTED: one whose value isn't supported.
absl::StatusOr<HuggingFaceConfig> ParseHuggingFaceConfig(absl::string_view text);

// eos_token_id of a generation_config.json, or nothing.
std::vector<int32_t> ParseEndTokens(absl::string_view text);

// A config.json that transformers builds the same model from. INVALID_ARGUMENT: the graph is none of the families gpt2
// and llama, and what of it differs.
absl::StatusOr<std::string> ToHuggingFaceConfig(const HuggingFaceConfig& config);

}  // namespace sluice
