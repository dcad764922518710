// Frames on the wire: a length (4 bytes, little-endian), then a proto::ControlFrame. Nothing here trusts the other end:
// a length is checked before memory is taken for it. Threads: one at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/control.pb.h"

namespace sluice {

// The bytes of a frame; shared, since many connections may be sent the same.
using WireBytes = std::shared_ptr<const std::string>;

// REQUIRES: the frame is smaller than 2 GiB.
WireBytes EncodeFrame(const proto::ControlFrame& frame);
// RESOURCE_EXHAUSTED: a reader with that limit would refuse it.
absl::Status CheckFrameFits(const proto::ControlFrame& frame, int64_t limit_bytes);

// Cuts what arrives on one connection into frames.
class FrameReader {
 public:
  // Of a frame without its length; a frame of more is an error.
  explicit FrameReader(int64_t limit_bytes) : limit_bytes_(limit_bytes) {}
  void set_limit(int64_t bytes) { limit_bytes_ = bytes; }

  // Takes what has arrived, in pieces of any size. The memory held is at most twice what has arrived and not been
  // taken by Next().
  void Append(absl::string_view bytes);
  // The next whole frame, or nothing while it is torn. RESOURCE_EXHAUSTED: announced as larger than the limit.
  // INVALID_ARGUMENT: empty, or no control frame. After an error the connection is of no more use.
  absl::StatusOr<std::optional<proto::ControlFrame>> Next();

 private:
  void DropTaken();

  int64_t limit_bytes_;
  std::string buffer_;
  size_t taken_ = 0;  // bytes of buffer_ that Next() has given out
};

}  // namespace sluice
