// PNG from SVG, by librsvg's program: pictures with text need a font engine, and nobody who trains should have to build
// one.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace sluice::tools {

// The file's bytes. Errors: UNAVAILABLE if rsvg-convert is not installed, with the package; INTERNAL if it fails.
absl::StatusOr<std::string> PngOf(const std::string& svg);

}  // namespace sluice::tools
