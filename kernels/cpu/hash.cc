#include "kernels/cpu/hash.h"

#include <array>
#include <atomic>
#include <bit>
#include <cstring>

#include "base/philox.h"
#include "kernels/tensor_check.h"
#include "kernels/cpu/work_split.h"

namespace sluice::cpu {
namespace {

constexpr int64_t kBlockBytes = int64_t{64} << 10;

// Several chains at once, since each step of one waits for a product. The rotation brings high bits down, where the
// product spreads them.
constexpr int kChains = 8;
constexpr uint64_t kFactor = 0x9e3779b97f4a7c15;
using Words = std::array<uint64_t, kChains>;

void Absorb(const Words& words, Words& chains) {
  for (int i = 0; i < kChains; ++i) chains[i] = std::rotl(chains[i] ^ words[i], 29) * kFactor;
}

uint64_t HashBlock(const std::byte* data, int64_t bytes, uint64_t block) {
  Words chains, words;
  chains.fill(MixBits(block));
  int64_t done = 0;
  for (; done + static_cast<int64_t>(sizeof(words)) <= bytes; done += sizeof(words)) {
    std::memcpy(words.data(), data + done, sizeof(words));
    Absorb(words, chains);
  }
  words.fill(0);
  std::memcpy(words.data(), data + done, bytes - done);
  Absorb(words, chains);
  uint64_t hash = 0;
  for (const uint64_t chain : chains) hash = MixBits(hash ^ chain);
  return hash;
}

}  // namespace

// The sum of the blocks' hashes, which know their places: in whatever order they come.
void Hash(Team& team, TensorView source, TensorView hash) {
  CheckVector("hash", hash, 2, DType::kI32);
  std::atomic<uint64_t> sum = MixBits(source.bytes());
  ForEachBlock(team, source.bytes(), kBlockBytes, [&](int64_t begin, int64_t end) {
    sum.fetch_add(HashBlock(source.data + begin, end - begin, begin / kBlockBytes), std::memory_order_relaxed);
  });
  const uint64_t result = sum.load();
  std::memcpy(hash.data, &result, sizeof(result));
}

}  // namespace sluice::cpu
