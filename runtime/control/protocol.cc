#include "runtime/control/protocol.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace sluice {
namespace {

constexpr size_t kMessageBytesMax = 16 << 10;
constexpr Nanoseconds kHeartbeatMin = 10 * kMillisecond;
constexpr Nanoseconds kHeartbeatMax = 24 * 3600 * kSecond;
// An abort with the longest message must fit; protobuf ends at 2 GiB.
constexpr int64_t kFrameBytesMin = 2 * kMessageBytesMax;
constexpr int64_t kFrameBytesMax = 1 << 30;

}  // namespace

absl::Status CheckLimits(const ControlLimits& limits) {
  const auto outside = [](const char* what, const std::string& value, const std::string& low, const std::string& high) {
    return absl::InvalidArgumentError(absl::StrCat(what, " of ", value, "; it must be from ", low, " to ", high));
  };
  if (limits.heartbeat < kHeartbeatMin || limits.heartbeat > kHeartbeatMax) {
    return outside("a heartbeat limit", Seconds(limits.heartbeat), Seconds(kHeartbeatMin), Seconds(kHeartbeatMax));
  }
  for (const int64_t bytes : {limits.frame_bytes, limits.hello_bytes}) {
    if (bytes >= kFrameBytesMin && bytes <= kFrameBytesMax) continue;
    return outside("a frame limit", absl::StrCat(bytes, " bytes"), absl::StrCat(kFrameBytesMin),
                   absl::StrCat(kFrameBytesMax));
  }
  return limits.strangers > 0 ? absl::OkStatus() : absl::InvalidArgumentError("no connection could ever be accepted");
}

std::string NumberRanges(const std::vector<int>& numbers) {
  std::string text;
  for (size_t i = 0; i < numbers.size();) {
    size_t last = i;
    while (last + 1 < numbers.size() && int64_t{numbers[last + 1]} == int64_t{numbers[last]} + 1) ++last;
    absl::StrAppend(&text, i == 0 ? "" : ", ", numbers[i]);
    if (last > i) absl::StrAppend(&text, last == i + 1 ? ", " : "-", numbers[last]);
    i = last + 1;
  }
  return text;
}

std::string ProcessName(int process, const std::string& host, const std::vector<WorldRank>& ranks) {
  std::vector<int> numbers;
  for (WorldRank rank : ranks) numbers.push_back(rank.value());
  std::sort(numbers.begin(), numbers.end());
  return absl::StrCat("process ", process, " (host ", host, ", ", numbers.size() == 1 ? "rank " : "ranks ",
                      NumberRanges(numbers), ")");
}

absl::Status StatusFromWire(int code, const std::string& message) {
  const bool known = code > 0 && code <= static_cast<int>(absl::StatusCode::kUnauthenticated);
  return absl::Status(known ? static_cast<absl::StatusCode>(code) : absl::StatusCode::kUnknown, message);
}

absl::Status Shortened(const absl::Status& status) {
  const absl::string_view message = status.message();
  if (message.size() <= kMessageBytesMax) return status;
  return absl::Status(status.code(), absl::StrCat(message.substr(0, kMessageBytesMax), " ..."));
}

proto::ControlFrame HelloFrame(const ProcessIdentity& self, const std::string& token) {
  proto::ControlFrame frame;
  proto::ControlFrame::Hello& hello = *frame.mutable_hello();
  hello.set_format_version(kControlFormatVersion);
  hello.set_token(token);
  hello.set_process(self.process);
  for (WorldRank rank : self.ranks) hello.add_world_ranks(rank.value());
  hello.set_host(self.host);
  hello.set_process_id(self.process_id);
  hello.set_instance(self.instance);
  for (const Fingerprint& one : self.fingerprints) {
    auto* fingerprint = hello.add_fingerprints();
    fingerprint->set_name(one.name);
    fingerprint->set_value(one.value);
  }
  return frame;
}

proto::ControlFrame AbortFrame(const absl::Status& cause) {
  proto::ControlFrame frame;
  frame.mutable_abort()->set_code(static_cast<int>(cause.code()));
  frame.mutable_abort()->set_message(std::string(cause.message()));
  return frame;
}

std::string Seconds(Nanoseconds time) { return absl::StrFormat("%g s", static_cast<double>(time) / kSecond); }

}  // namespace sluice
