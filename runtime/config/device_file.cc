#include "runtime/config/device_file.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/status.h"
#include "proto/device.pb.h"
#include "proto/text.h"
#include "runtime/config/paths.h"
#include "runtime/config/shipped_devices.h"

namespace sluice {
namespace {

constexpr absl::string_view kEnding = ".textproto";
constexpr int kDevicesMax = 1 << 20;

class Reader {
 public:
  explicit Reader(const TextLocations& locations) : locations_(locations) {}

  absl::StatusOr<DeviceDescription> Read(const proto::Device& from) {
    if (from.has_format_version() && from.format_version() != 1) {
      Fail("format_version", absl::StrCat("this program reads version 1, not ", from.format_version()));
    }
    if (from.name().empty()) Fail("name", "a device has a name for people");
    DeviceDescription device{.name = from.name()};
    device.peak_flops_f32 = 1e12 * Between(from.tflops_f32(), 1e-3, 1e6, "tflops_f32");
    device.peak_flops_bf16 = 1e12 * Between(from.tflops_bf16(), 1e-3, 1e6, "tflops_bf16");
    const double product_share = Between(from.product_share(), 0.01, 1, "product_share");
    device.flops_f32 = product_share * device.peak_flops_f32;
    device.flops_bf16 = product_share * device.peak_flops_bf16;
    device.bytes_per_second = 1e9 * Between(from.memory_gbytes_per_second(), 1e-3, 1e6, "memory_gbytes_per_second") *
                              Between(from.memory_share(), 0.01, 1, "memory_share");
    device.memory_bytes = Mebibytes(from.memory_mib(), 1, "memory_mib");
    device.reserved_bytes = Mebibytes(from.reserved_mib(), 0, "reserved_mib");
    if (device.reserved_bytes >= device.memory_bytes) Fail("reserved_mib", "leaves nothing of memory_mib");
    device.layer_overhead_ns = 0;
    device.launch_ns = Microseconds(from.launch_us(), "launch_us");
    device.devices_per_host = static_cast<int>(Between(from.devices_per_host(), 0, kDevicesMax, "devices_per_host"));
    if (!from.has_peer()) Fail("peer", "a device says what connects it to the others of its host: peer { ... }");
    device.peer = Link(from.peer(), "peer.");
    device.host = from.has_host() ? Link(from.host(), "host.") : device.peer;
    device.network = from.has_network() ? Link(from.network(), "network.") : device.peer;
    if (!error_.ok()) return error_;
    return device;
  }

 private:
  double Between(double value, double least, double most, const std::string& field) {
    if (value >= least && value <= most) return value;
    Fail(field, absl::StrCat("expected a number from ", least, " to ", most, ", found ", value));
    return least;
  }
  int64_t Mebibytes(int64_t value, int64_t least, const std::string& field) {
    return static_cast<int64_t>(Between(static_cast<double>(value), static_cast<double>(least), 1e9, field)) << 20;
  }
  int64_t Microseconds(double value, const std::string& field) {
    return std::llround(1e3 * Between(value, 0, 1e9, field));
  }
  LinkDescription Link(const proto::Link& from, const std::string& at) {
    return {.bytes_per_second = 1e9 * Between(from.gbytes_per_second(), 1e-6, 1e6, at + "gbytes_per_second"),
            .latency_ns = Microseconds(from.latency_us(), at + "latency_us")};
  }
  void Fail(const std::string& field, const std::string& what) {
    if (error_.ok()) error_ = absl::InvalidArgumentError(absl::StrCat(locations_.Prefix(field), field, ": ", what));
  }

  const TextLocations& locations_;
  absl::Status error_;
};

// What counts of a name.
std::string Essence(absl::string_view name) {
  std::string essence;
  for (const char c : name) {
    if (absl::ascii_isalnum(c)) essence += absl::ascii_tolower(c);
  }
  return essence;
}

std::string NameOf(const ShippedDevice& device) { return std::string(absl::StripSuffix(device.file, kEnding)); }

}  // namespace

std::vector<std::string> ShippedDevices() {
  std::vector<std::string> names;
  for (const ShippedDevice& device : ShippedDeviceFiles()) names.push_back(NameOf(device));
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<DeviceDescription> FindDevice(absl::string_view name, const std::string& user_directory) {
  if (absl::EndsWith(name, kEnding)) {
    ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(ResolvePath(user_directory, name)));
    return DeviceFromText(text, std::string(name));
  }
  for (const ShippedDevice& device : ShippedDeviceFiles()) {
    if (Essence(NameOf(device)) == Essence(name)) return DeviceFromText(device.text, device.file);
  }
  const std::string nearest = NearestName(ShippedDevices(), absl::AsciiStrToLower(name));
  return absl::NotFoundError(absl::StrCat(
      "no device '", name, "' is described", nearest.empty() ? "" : absl::StrCat(" (did you mean ", nearest, "?)"),
      "; there are: ", absl::StrJoin(ShippedDevices(), ", "), "; or name a file that ends in ", kEnding,
      ", like those of ", "runtime/config/devices"));
}

absl::StatusOr<DeviceDescription> FindDeviceOfGpu(absl::string_view cuda_name) {
  for (const ShippedDevice& device : ShippedDeviceFiles()) {
    proto::Device from;
    RETURN_IF_ERROR(ParseText(device.text, device.file, from).status());
    for (const std::string& part : from.cuda_name()) {
      if (absl::StrContains(cuda_name, part)) return DeviceFromText(device.text, device.file);
    }
  }
  return absl::NotFoundError(absl::StrCat("no description of '", cuda_name, "' is shipped"));
}

absl::StatusOr<DeviceDescription> DeviceFromText(absl::string_view text, const std::string& file) {
  proto::Device from;
  ASSIGN_OR_RETURN(const TextLocations locations, ParseText(text, file, from));
  return Reader(locations).Read(from);
}

absl::StatusOr<DeviceChoice> ParseDevices(absl::string_view text) {
  const absl::string_view whole = absl::StripAsciiWhitespace(text);
  size_t digits = 0;
  while (digits < whole.size() && absl::ascii_isdigit(whole[digits])) ++digits;
  const absl::string_view rest = absl::StripLeadingAsciiWhitespace(whole.substr(digits));
  DeviceChoice choice{.device = std::string(whole)};
  if (digits > 0 && absl::StartsWith(rest, "x")) {
    choice.device = std::string(absl::StripLeadingAsciiWhitespace(rest.substr(1)));
    if (!absl::SimpleAtoi(whole.substr(0, digits), &choice.count) || choice.count < 1 || choice.count > kDevicesMax) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", text, "': expected 1 to ", kDevicesMax, " devices, as in 8x H100"));
    }
  }
  if (Essence(choice.device).empty()) {
    return absl::InvalidArgumentError(absl::StrCat("'", text, "' names no device; expected one as in 8x H100"));
  }
  return choice;
}

}  // namespace sluice
