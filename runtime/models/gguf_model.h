// What a GGUF file says of a model: its layer graph, its tokenizer, its chat template. Architectures llama and gpt2.
//
// Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/models/gguf.h"
#include "runtime/tokenizer/tokenizer.h"
#include "stages/graph.h"

namespace sluice {

// INVALID_ARGUMENT: a value that is missing or out of range. UNIMPLEMENTED: what isn't supported, by its key.
absl::StatusOr<LayerGraph> GraphOf(const Gguf& file);

// Byte-level byte-pair encoding (tokenizer.ggml.model gpt2), cut as GPT-2, Llama 3 or SmolLM do (tokenizer.ggml.pre).
absl::StatusOr<TokenizerParts> TokenizerPartsOf(const Gguf& file);

// The ids at which generation ends.
std::vector<int32_t> EndTokensOf(const Gguf& file);

}  // namespace sluice
