// The files of devices/, as a build rule writes them into the program.
#pragma once

#include "absl/types/span.h"

namespace sluice {

struct ShippedDevice {
  const char* file;  // "h100.textproto"
  const char* text;
};
absl::Span<const ShippedDevice> ShippedDeviceFiles();

}  // namespace sluice
