#include "runtime/data/sampler.h"

#include <utility>

#include "base/check.h"
#include "base/philox.h"

namespace sluice {

int64_t Permute(int64_t index, int64_t size, uint64_t key) {
  CHECK_GE(index, 0);
  CHECK_LT(index, size);
  int half_bits = 1;
  while ((int64_t{1} << (2 * half_bits)) < size) ++half_bits;
  const uint64_t mask = (uint64_t{1} << half_bits) - 1;
  auto value = static_cast<uint64_t>(index);
  do {
    uint64_t left = value >> half_bits, right = value & mask;
    for (uint64_t round = 0; round < 6; ++round) {
      const uint64_t mixed = MixBits(MixBits(key + round) ^ right) & mask;
      left = std::exchange(right, left ^ mixed);
    }
    value = left << half_bits | right;
  } while (value >= static_cast<uint64_t>(size));
  return static_cast<int64_t>(value);
}

// The last window still needs one token after it, for its last target.
WindowSampler::WindowSampler(int64_t stream_tokens, int64_t sequence, uint64_t seed)
    : stream_tokens_(stream_tokens), sequence_(sequence), windows_((stream_tokens - 1) / sequence), seed_(seed) {
  CHECK_GT(stream_tokens, sequence);
  CHECK_GT(sequence, 0);
}

int64_t WindowSampler::Offset(int64_t sample) const {
  const auto epoch = static_cast<uint64_t>(sample / windows_);
  const uint64_t key = MixBits(seed_ ^ MixBits(HashName("data") + epoch));
  const int64_t slack = stream_tokens_ - 1 - windows_ * sequence_;
  const int64_t phase = static_cast<int64_t>(MixBits(key + 1) % static_cast<uint64_t>(slack + 1));
  return phase + Permute(sample % windows_, windows_, key) * sequence_;
}

}  // namespace sluice
