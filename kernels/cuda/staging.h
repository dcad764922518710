// Pinned host memory that a stream's copies between host and device go through: a copy of memory that isn't pinned
// would wait for the device. What comes from the device lies here until whoever sees that the copy has ended lets it
// land. Made by MakeRef; events keep it alive. Threads: any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "base/ref.h"

namespace sluice::cuda {

class Staging final : public RefCounted {
 public:
  static constexpr int64_t kBytes = 8 << 20;
  static constexpr int64_t kPieceMax = kBytes / 4;

  ~Staging() override;
  // Room for a piece of a copy; where it lands on the host, or null: it goes to the device. Null: there is no room now,
  // or no pinned memory at all (`failed`).
  std::byte* Take(int64_t bytes, void* host);
  bool failed() const { return failed_; }
  // Pieces taken so far.
  uint64_t taken() const;
  // The copies of the first `count` pieces have ended.
  void Settle(uint64_t count);

 private:
  struct Piece {
    std::byte* data = nullptr;
    void* host = nullptr;
    int64_t bytes = 0;
    uint64_t end = 0;  // of the bytes ever taken, gaps included
  };
  static constexpr size_t kPieces = 1024;

  mutable std::mutex mutex_;
  std::byte* memory_ = nullptr;  // with the first piece
  bool failed_ = false;
  std::vector<Piece> pieces_{kPieces};  // a ring
  uint64_t taken_ = 0, settled_ = 0;
  uint64_t end_ = 0, begin_ = 0;  // bytes ever taken and given back
};

}  // namespace sluice::cuda
