#include "runtime/control/frame.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

constexpr size_t kLengthBytes = 4;
// A buffer that a large frame has left behind is not kept.
constexpr size_t kKeptBytes = 4096;

uint32_t ReadLength(const char* bytes) {
  uint32_t length = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) length |= uint32_t{static_cast<uint8_t>(bytes[i])} << (8 * i);
  return length;
}

}  // namespace

WireBytes EncodeFrame(const proto::ControlFrame& frame) {
  const size_t length = frame.ByteSizeLong();
  auto wire = std::make_shared<std::string>();
  wire->reserve(kLengthBytes + length);
  for (size_t i = 0; i < kLengthBytes; ++i) wire->push_back(static_cast<char>(length >> (8 * i)));
  frame.AppendToString(wire.get());
  return wire;
}

absl::Status CheckFrameFits(const proto::ControlFrame& frame, int64_t limit_bytes) {
  const size_t bytes = frame.ByteSizeLong();
  if (bytes <= static_cast<size_t>(limit_bytes)) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("a control message of ", bytes, " bytes; at most ", limit_bytes, " may be sent"));
}

void FrameReader::Append(absl::string_view bytes) { buffer_.append(bytes.data(), bytes.size()); }

absl::StatusOr<std::optional<proto::ControlFrame>> FrameReader::Next() {
  const size_t held = buffer_.size() - taken_;
  if (held < kLengthBytes) {
    DropTaken();
    return std::nullopt;
  }
  const uint32_t length = ReadLength(buffer_.data() + taken_);
  if (length == 0) return absl::InvalidArgumentError("an empty frame");
  if (length > limit_bytes_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a frame of ", length, " bytes; at most ", limit_bytes_, " are taken here"));
  }
  if (held - kLengthBytes < length) {
    DropTaken();
    return std::nullopt;
  }
  proto::ControlFrame frame;
  const bool parsed = frame.ParseFromArray(buffer_.data() + taken_ + kLengthBytes, static_cast<int>(length));
  if (!parsed || frame.body_case() == proto::ControlFrame::BODY_NOT_SET) {
    return absl::InvalidArgumentError(absl::StrCat("a frame of ", length, " bytes that is none of the control plane"));
  }
  taken_ += kLengthBytes + length;
  return std::make_optional(std::move(frame));
}

void FrameReader::DropTaken() {
  if (taken_ == 0) return;
  buffer_.erase(0, taken_);
  taken_ = 0;
  if (buffer_.size() <= kKeptBytes && buffer_.capacity() > kKeptBytes) std::string(buffer_).swap(buffer_);
}

}  // namespace sluice
