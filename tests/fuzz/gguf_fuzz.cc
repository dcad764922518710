// libFuzzer target: any bytes as a GGUF file, and what a file that is one says of a model. Whatever is opened can be
// read to the last element.
#include <cstdint>
#include <string>
#include <vector>

#include "base/check.h"
#include "runtime/models/gguf.h"
#include "runtime/models/gguf_model.h"
#include "runtime/models/stored_parameters.h"
#include "stages/parameters.h"

namespace sluice {
namespace {

void ReadAll(const LayerGraph& graph, const ParameterSource& source) {
  for (size_t node = 0; node < graph.nodes.size(); ++node) {
    for (const ParameterSpec& spec : Parameters(graph, node)) {
      std::vector<float> values(spec.elements());
      CHECK_OK(source.Read(StateKind::kParameter, spec.name, {.rows = spec.rows, .columns = spec.columns},
                           absl::MakeSpan(values)));
    }
  }
}

void Fuzz(absl::string_view bytes) {
  const auto file = Gguf::Parse(bytes);
  if (!file.ok()) return;
  if (auto parts = TokenizerPartsOf(*file); parts.ok()) Tokenizer::Create(*std::move(parts)).status().IgnoreError();
  EndTokensOf(*file);
  const auto graph = GraphOf(*file);
  if (!graph.ok()) return;
  EncodedTensors tensors;
  for (const auto& [name, tensor] : file->tensors())
    tensors.emplace(name, EncodedTensor{tensor.shape, tensor.encoding, tensor.data});
  const auto source = StoredParameterSource::Create(*graph, ModelFormat::kGguf, std::move(tensors), nullptr);
  if (source.ok()) ReadAll(*graph, **source);
}

}  // namespace
}  // namespace sluice

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  sluice::Fuzz({reinterpret_cast<const char*>(data), size});
  return 0;
}
