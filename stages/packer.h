// Hands out pieces of memory one after another, as offsets.
#pragma once

#include <cstdint>

namespace sluice {

constexpr int64_t RoundUpToPiece(int64_t bytes) { return (bytes + 63) / 64 * 64; }

class Packer {
 public:
  int64_t Take(int64_t bytes) {
    const int64_t offset = used_;
    used_ += RoundUpToPiece(bytes);
    return offset;
  }
  int64_t used() const { return used_; }

 private:
  int64_t used_ = 0;
};

}  // namespace sluice
