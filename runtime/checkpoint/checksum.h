// XXH3, 64 bits, of bytes that come in parts: as fast as memory, and the same on every machine. Finds what a disk or a
// cable has done, not what somebody meant to do.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

struct XXH3_state_s;

namespace sluice {

class Checksum {
 public:
  Checksum();
  void Add(absl::Span<const std::byte> bytes);
  // Of all that was added; more may follow.
  uint64_t Value() const;
  // Begins again.
  void Reset();

 private:
  struct Free {
    void operator()(XXH3_state_s* state) const;
  };
  std::unique_ptr<XXH3_state_s, Free> state_;
};

uint64_t ChecksumOf(absl::Span<const std::byte> bytes);
uint64_t ChecksumOf(absl::string_view text);

}  // namespace sluice
