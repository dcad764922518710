#include "kernels/cuda/staging.h"

#include <cstring>

#include "base/check.h"
#include "kernels/cuda/errors.h"

namespace sluice::cuda {

Staging::~Staging() {
  if (memory_ != nullptr) IgnoreError(cudaFreeHost(memory_));
}

std::byte* Staging::Take(int64_t bytes, void* host) {
  CHECK_LE(bytes, kPieceMax);
  std::lock_guard lock(mutex_);
  if (memory_ == nullptr && !failed_) {
    void* memory = nullptr;
    failed_ = cudaHostAlloc(&memory, kBytes, cudaHostAllocPortable) != cudaSuccess;
    memory_ = static_cast<std::byte*>(memory);
  }
  if (failed_ || taken_ - settled_ == kPieces) return nullptr;
  constexpr uint64_t kAlignment = 64;
  uint64_t first = (end_ + kAlignment - 1) / kAlignment * kAlignment;
  const uint64_t until_end = kBytes - first % kBytes;
  if (until_end < static_cast<uint64_t>(bytes)) first += until_end;
  if (first + bytes - begin_ > kBytes) return nullptr;
  end_ = first + bytes;
  Piece& piece = pieces_[taken_++ % kPieces];
  piece = {.data = memory_ + first % kBytes, .host = host, .bytes = bytes, .end = end_};
  return piece.data;
}

uint64_t Staging::taken() const {
  std::lock_guard lock(mutex_);
  return taken_;
}

void Staging::Settle(uint64_t count) {
  std::lock_guard lock(mutex_);
  for (; settled_ < count; ++settled_) {
    const Piece& piece = pieces_[settled_ % kPieces];
    if (piece.host != nullptr) std::memcpy(piece.host, piece.data, piece.bytes);
    begin_ = piece.end;
  }
}

}  // namespace sluice::cuda
