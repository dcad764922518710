// libFuzzer target: a checkpoint's manifest against any bytes, as they stand and behind a first line with their
// checksum.
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "base/check.h"
#include "runtime/checkpoint/checksum.h"
#include "runtime/checkpoint/manifest.h"
#include "runtime/checkpoint/piece.h"

namespace sluice {
namespace {

// What was accepted can be worked with, and written and read again.
void CheckAccepted(const proto::CheckpointManifest& manifest) {
  CheckPieces(manifest).IgnoreError();
  for (const proto::CheckpointShard& shard : manifest.shard()) {
    for (const proto::CheckpointPiece& proto : shard.piece()) {
      const auto piece = FromProto(proto);
      CHECK_OK(piece.status());
      int64_t elements = 0;
      for (const PieceRectangle& part : RectanglesOf(*piece)) elements += part.rectangle.elements();
      CHECK_EQ(elements, piece->count);
    }
  }
  const auto text = FormatManifest(manifest);
  CHECK_OK(text.status());
  const auto again = ParseManifest(*text);
  CHECK_OK(again.status());
  CHECK(FormatManifest(*again).value() == *text);
}

}  // namespace
}  // namespace sluice

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const std::string right = absl::StrFormat("{\"checksum\": \"%016x\",\n%s", sluice::ChecksumOf(text), text);
  for (const absl::string_view input : {text, absl::string_view(right)}) {
    if (const auto manifest = sluice::ParseManifest(input); manifest.ok()) sluice::CheckAccepted(*manifest);
  }
  return 0;
}
