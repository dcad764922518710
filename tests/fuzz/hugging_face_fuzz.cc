// libFuzzer target: any bytes as a config.json and a generation_config.json. A model that is understood is written so that
// it is read as the same.
#include <cstdint>

#include "base/check.h"
#include "runtime/models/hugging_face_config.h"

namespace sluice {
namespace {

void Fuzz(absl::string_view text) {
  ParseEndTokens(text);
  const auto config = ParseHuggingFaceConfig(text);
  if (!config.ok()) return;
  const auto written = ToHuggingFaceConfig(*config);
  CHECK_OK(written.status());
  const auto again = ParseHuggingFaceConfig(*written);
  CHECK_OK(again.status());
  CHECK(again->graph == config->graph);
  CHECK(again->end_tokens == config->end_tokens);
}

}  // namespace
}  // namespace sluice

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  sluice::Fuzz({reinterpret_cast<const char*>(data), size});
  return 0;
}
