// Philox4x32-10 (base/philox.h) for a vector of counters. Compiled once per instruction set, like simd-inl.h.

#include "base/philox.h"
#include "kernels/cpu/simd-inl.h"

#if defined(SLUICE_KERNELS_CPU_PHILOX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SLUICE_KERNELS_CPU_PHILOX_INL_H_
#undef SLUICE_KERNELS_CPU_PHILOX_INL_H_
#else
#define SLUICE_KERNELS_CPU_PHILOX_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR  // has no products of 64 bits

HWY_INLINE int64_t QuadsAtOnce() { return 1; }

HWY_INLINE void RandomQuads(uint64_t key, uint32_t step, uint32_t sample, uint64_t quad, uint32_t* words) {
  const PhiloxBlock block = Philox({static_cast<uint32_t>(quad), static_cast<uint32_t>(quad >> 32), sample, step}, key);
  std::memcpy(words, block.data(), sizeof(block));
}

#else

using U64Tag = hn::Repartition<uint64_t, F32Tag>;
using U64 = hn::Vec<U64Tag>;

// A word is the lower half of a lane of 64 bits; what lies above it is never looked at, so a product is two words as it
// stands: itself, and itself shifted down.
HWY_INLINE void PhiloxRound(U64 k0, U64 k1, U64& c0, U64& c1, U64& c2, U64& c3) {
  const U32Tag u32;
  const U64 a = hn::MulEven(hn::BitCast(u32, c0), hn::Set(u32, 0xD2511F53u));
  const U64 b = hn::MulEven(hn::BitCast(u32, c2), hn::Set(u32, 0xCD9E8D57u));
  c0 = hn::Xor(hn::ShiftRight<32>(b), hn::Xor(c1, k0));
  c1 = b;
  c2 = hn::Xor(hn::ShiftRight<32>(a), hn::Xor(c3, k1));
  c3 = a;
}

HWY_INLINE void StoreWords(U64 c0, U64 c1, U64 c2, U64 c3, uint32_t* words) {
  const U64Tag u64;
  const U64 low = hn::Set(u64, 0xffffffffu);
  const U64 first = hn::Or(hn::And(c0, low), hn::ShiftLeft<32>(c1));
  const U64 second = hn::Or(hn::And(c2, low), hn::ShiftLeft<32>(c3));
  hn::StoreInterleaved2(first, second, u64, reinterpret_cast<uint64_t*>(words));
}

HWY_INLINE int64_t QuadsAtOnce() { return 2 * static_cast<int64_t>(hn::Lanes(U64Tag())); }

// Fills words[0 ... 4 * QuadsAtOnce()) with RandomWords() of QuadsAtOnce() quads from `quad` on, for the mixed key of
// (seed, name). Two vectors at once, since each round waits for the one before it.
HWY_INLINE void RandomQuads(uint64_t key, uint32_t step, uint32_t sample, uint64_t quad, uint32_t* words) {
  const U64Tag u64;
  const uint64_t lanes = hn::Lanes(u64);
  U64 a0 = hn::Add(hn::Set(u64, quad), hn::Iota(u64, 0)), b0 = hn::Add(a0, hn::Set(u64, lanes));
  U64 a1 = hn::ShiftRight<32>(a0), b1 = hn::ShiftRight<32>(b0);
  U64 a2 = hn::Set(u64, sample), b2 = a2;
  U64 a3 = hn::Set(u64, step), b3 = a3;
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const U64 v0 = hn::Set(u64, k0), v1 = hn::Set(u64, k1);
    PhiloxRound(v0, v1, a0, a1, a2, a3);
    PhiloxRound(v0, v1, b0, b1, b2, b3);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  StoreWords(a0, a1, a2, a3, words);
  StoreWords(b0, b1, b2, b3, words + 4 * lanes);
}

#endif

}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
