// What a rank has posted: a send, a receive or its part of a collective.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "base/event.h"
#include "kernels/transport.h"

namespace sluice::internal {

struct Request {
  enum class Kind : uint8_t { kSend, kRecv, kAllGather, kAllToAll };
  Kind kind = Kind::kSend;
  size_t target = 0;  // index of its channel or group in the hub's directory
  Slot* slot = nullptr;
  TensorView mine, all;
  absl::Span<const int64_t> parts;
  EventRef after;

  bool is_collective() const { return kind == Kind::kAllGather || kind == Kind::kAllToAll; }
};

}  // namespace sluice::internal
