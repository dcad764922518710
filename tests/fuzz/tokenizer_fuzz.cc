// libFuzzer target: any bytes as a tokenizer.json, which then encodes its own text. What it makes are tokens of its own.
#include <cstdint>
#include <vector>

#include "base/check.h"
#include "runtime/tokenizer/tokenizer.h"

namespace sluice {
namespace {

void Fuzz(absl::string_view text) {
  auto parts = ParseTokenizerJson(text);
  if (!parts.ok()) return;
  const auto tokenizer = Tokenizer::Create(*std::move(parts));
  if (!tokenizer.ok()) return;
  std::vector<int32_t> ids;
  Tokenizer::Encoder encoder(*tokenizer);
  encoder.Encode(text, AddedTokens::kRecognized, &ids).IgnoreError();
  for (const int32_t id : ids) CHECK(id >= 0 && id < tokenizer->vocabulary()) << id;
  tokenizer->Decode(ids);
}

}  // namespace
}  // namespace sluice

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  sluice::Fuzz({reinterpret_cast<const char*>(data), size});
  return 0;
}
