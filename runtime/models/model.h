// A model that was trained elsewhere, or here: its graph, where its parameters come from, and what it takes to talk to
// it.
//
// Opening one reads headers alone; parameters are read from the mapped files when somebody asks for them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/checkpoint/parameter_source.h"
#include "runtime/tokenizer/tokenizer.h"
#include "stages/graph.h"

namespace sluice {

struct PretrainedModel {
  LayerGraph graph;  // without dropout
  std::shared_ptr<const ParameterSource> parameters;
  std::shared_ptr<const Tokenizer> tokenizer;  // null: there is none ...
  std::string no_tokenizer;                    // ... and why
  std::string chat_template;                   // in Jinja; empty: there is none
  std::vector<int32_t> end_tokens;             // at which generation ends
  int64_t context = 0;                         // tokens that it can take at once
};

// A folder of Hugging Face's (config.json, model.safetensors or several with an index, tokenizer.json), a GGUF file, a
// checkpoint of this program's or a folder of them, of which the newest is taken.
// Errors name the file and what of it is missing, wrong or not supported.
absl::StatusOr<PretrainedModel> OpenModel(const std::string& path);

// A tokenizer alone: a tokenizer.json, a folder that has one, or a GGUF file.
absl::StatusOr<Tokenizer> OpenTokenizer(const std::string& path);

}  // namespace sluice
