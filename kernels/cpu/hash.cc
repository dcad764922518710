#include "kernels/cpu/hash.h"

#include <array>
#include <atomic>
#include <cstring>

#include "kernels/cpu/work_split.h"
#include "kernels/hash_chains.h"
#include "kernels/operation_check.h"

namespace sluice::cpu {
namespace {

using Words = std::array<uint64_t, kHashChains>;

void Absorb(const Words& words, Words& chains) {
  for (int i = 0; i < kHashChains; ++i) chains[i] = AbsorbWord(chains[i], words[i]);
}

}  // namespace

uint64_t HashBlock(const std::byte* data, int64_t bytes, uint64_t block) {
  Words chains, words;
  chains.fill(BeginHashChain(block));
  int64_t done = 0;
  for (; done + static_cast<int64_t>(sizeof(words)) <= bytes; done += sizeof(words)) {
    std::memcpy(words.data(), data + done, sizeof(words));
    Absorb(words, chains);
  }
  words.fill(0);
  std::memcpy(words.data(), data + done, bytes - done);
  Absorb(words, chains);
  uint64_t hash = 0;
  for (const uint64_t chain : chains) hash = JoinHashChain(hash, chain);
  return hash;
}

void Hash(Team& team, TensorView source, TensorView hash) {
  CheckHash(hash);
  std::atomic<uint64_t> sum = HashOfSize(source.bytes());
  ForEachBlock(team, source.bytes(), kHashBlockBytes, [&](int64_t begin, int64_t end) {
    sum.fetch_add(HashBlock(source.data + begin, end - begin, begin / kHashBlockBytes), std::memory_order_relaxed);
  });
  const uint64_t result = sum.load();
  std::memcpy(hash.data, &result, sizeof(result));
}

}  // namespace sluice::cpu
