// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11). The same
// (key, counter) gives the same four words on every device, in any order, so a number depends on what it is for and not on who
// draws it.
#pragma once

#include <array>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace sluice {

using PhiloxBlock = std::array<uint32_t, 4>;

constexpr PhiloxBlock Philox(PhiloxBlock counter, uint64_t key) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53u} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ k0, static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ k1, static_cast<uint32_t>(a)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return counter;
}

// Finalizer of splitmix64: spreads the bits of a seed.
constexpr uint64_t MixBits(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

// FNV-1a, the same on every machine: names of layers and parameters become part of a key.
constexpr uint64_t HashName(absl::string_view name) {
  uint64_t hash = 0xCBF29CE484222325u;
  for (size_t i = 0; i < name.size(); ++i) hash = (hash ^ static_cast<unsigned char>(name[i])) * 0x100000001B3u;
  return hash;
}

// The four words for elements 4*quad ... 4*quad+3 of sample `sample` in step `step`.
constexpr PhiloxBlock RandomWords(uint64_t seed, uint64_t name, uint32_t step, uint32_t sample, uint64_t quad) {
  return Philox({static_cast<uint32_t>(quad), static_cast<uint32_t>(quad >> 32), sample, step}, MixBits(seed ^ MixBits(name)));
}

// Uniform in [0, 1) with 24 bits.
constexpr float UnitFloat(uint32_t word) { return static_cast<float>(word >> 8) * 0x1.0p-24f; }

}  // namespace sluice
