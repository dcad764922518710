// Which window of the training stream a sample is: a pure function of seed and global sample number, so that it doesn't depend
// on the layout and a run can go on from any step.
#pragma once

#include <cstdint>

namespace sluice {

// Each epoch cuts the stream into windows of `sequence` tokens, from an offset of its own, and visits each once, in an order
// of its own.
class WindowSampler {
 public:
  // REQUIRES: stream_tokens > sequence > 0.
  WindowSampler(int64_t stream_tokens, int64_t sequence, uint64_t seed);
  int64_t windows_per_epoch() const { return windows_; }
  // Offset of the first token of sample 0, 1, ...; sequence + 1 tokens from there are in the stream.
  int64_t Offset(int64_t sample) const;

 private:
  int64_t stream_tokens_;
  int64_t sequence_;
  int64_t windows_;
  uint64_t seed_;
};

// The image of `index` under a permutation of 0 ... size-1 chosen by `key`: a Feistel network over the next even power of two,
// walked until it lands inside (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).
int64_t Permute(int64_t index, int64_t size, uint64_t key);

}  // namespace sluice
