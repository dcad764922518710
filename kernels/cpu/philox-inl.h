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

#if HWY_TARGET != HWY_SCALAR
using U32 = hn::Vec<U32Tag>;

// The upper and lower halves of the lanes' 64-bit products with `factor`.
HWY_INLINE void MultiplyWide(U32 a, uint32_t factor, U32& high, U32& low) {
  const U32Tag u32;
  const hn::RepartitionToWide<U32Tag> u64;
  const U32 b = hn::Set(u32, factor);
  const auto even = hn::MulEven(a, b);
  const auto odd = hn::MulEven(hn::BitCast(u32, hn::ShiftRight<32>(hn::BitCast(u64, a))), b);
  high = hn::OddEven(hn::BitCast(u32, odd), hn::BitCast(u32, hn::ShiftRight<32>(even)));
  low = hn::OddEven(hn::BitCast(u32, hn::ShiftLeft<32>(odd)), hn::BitCast(u32, even));
}

#endif

// Fills words[0 ... 4 * Lanes()) with RandomWords() of Lanes() quads from `quad` on, for the mixed key of (seed, name).
HWY_INLINE void RandomQuads(uint64_t key, uint32_t step, uint32_t sample, uint64_t quad, uint32_t* words) {
#if HWY_TARGET == HWY_SCALAR  // has no products of 64 bits
  const PhiloxBlock block = Philox({static_cast<uint32_t>(quad), static_cast<uint32_t>(quad >> 32), sample, step}, key);
  std::memcpy(words, block.data(), sizeof(block));
#else
  const U32Tag u32;
  const auto lanes = hn::Iota(u32, 0);
  U32 c0 = hn::Add(hn::Set(u32, static_cast<uint32_t>(quad)), lanes);
  // A carry where adding the lane has wrapped.
  const auto carry = hn::VecFromMask(u32, hn::Lt(c0, lanes));  // all ones: -1
  U32 c1 = hn::Sub(hn::Set(u32, static_cast<uint32_t>(quad >> 32)), carry);
  U32 c2 = hn::Set(u32, sample);
  U32 c3 = hn::Set(u32, step);
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    U32 high_a, low_a, high_b, low_b;
    MultiplyWide(c0, 0xD2511F53u, high_a, low_a);
    MultiplyWide(c2, 0xCD9E8D57u, high_b, low_b);
    c0 = hn::Xor(hn::Xor(high_b, c1), hn::Set(u32, k0));
    c1 = low_b;
    c2 = hn::Xor(hn::Xor(high_a, c3), hn::Set(u32, k1));
    c3 = low_a;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  hn::StoreInterleaved4(c0, c1, c2, c3, u32, words);
#endif
}

}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard
