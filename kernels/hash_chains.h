// The hash of a tensor's bits, on every device. Blocks of kHashBlockBytes are hashed each for itself, by kHashChains
// chains: chain c takes every kHashChains-th word of 8 bytes, from word c on, the last ones filled up with zeros. The
// result is the sum of the blocks' hashes, which know their places, and of the size's.
#pragma once

#include <bit>
#include <cstdint>

#include "base/philox.h"

namespace sluice {

inline constexpr int64_t kHashBlockBytes = int64_t{64} << 10;
// Several chains at once, since each step of one waits for a product.
inline constexpr int kHashChains = 8;

constexpr uint64_t BeginHashChain(uint64_t block) { return MixBits(block); }
// The rotation brings high bits down, where the product spreads them.
constexpr uint64_t AbsorbWord(uint64_t chain, uint64_t word) {
  return std::rotl(chain ^ word, 29) * 0x9e3779b97f4a7c15u;
}
// Of a block's chains, one after the other, from 0 on.
constexpr uint64_t JoinHashChain(uint64_t hash, uint64_t chain) { return MixBits(hash ^ chain); }
constexpr uint64_t HashOfSize(int64_t bytes) { return MixBits(static_cast<uint64_t>(bytes)); }

}  // namespace sluice
