// Devices as text (proto/device.proto): those that are shipped, built into the program, and files of the user's own.
// Pure functions, but for the reading of a file.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/device_description.h"

namespace sluice {

// Their names, sorted: "a100", ...
std::vector<std::string> ShippedDevices();

// "H100" (capitals, blanks, dashes and underscores don't count), or the path of a file, which ends in .textproto and is
// relative to `user_directory`. Errors: NOT_FOUND with the names there are; INVALID_ARGUMENT with file and line.
absl::StatusOr<DeviceDescription> FindDevice(absl::string_view name, const std::string& user_directory);

// The shipped one that CUDA calls so ("NVIDIA H100 80GB HBM3"). NOT_FOUND: none is.
absl::StatusOr<DeviceDescription> FindDeviceOfGpu(absl::string_view cuda_name);

// `file` is for errors.
absl::StatusOr<DeviceDescription> DeviceFromText(absl::string_view text, const std::string& file);

// "8x H100", "8xH100", "H100".
struct DeviceChoice {
  int count = 0;  // 0: none was said
  std::string device;
};
absl::StatusOr<DeviceChoice> ParseDevices(absl::string_view text);

}  // namespace sluice
