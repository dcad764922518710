// For the files that use AMX and AVX-512 intrinsics directly: functions marked TILE_FUNCTION are compiled for them,
// whatever the rest of the file and the program are compiled for. REQUIRES of all of them: tiles::Available().
#pragma once

#include <immintrin.h>

#include "kernels/dtype.h"

#define TILE_FUNCTION __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16")))
#define TILE_INLINE TILE_FUNCTION __attribute__((always_inline)) inline

namespace sluice::cpu::tiles {

// 32 sums as one row of bf16.
TILE_INLINE __m512i Round(__m512 low, __m512 high) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }

// Two rows of the depth, of 32 columns each, as the row of pairs that they are in two right-hand tiles: the first 16
// columns at `left`, the others at `right`.
TILE_INLINE void StorePairs(__m512i row, __m512i next, BFloat16* left, BFloat16* right) {
  const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  const __m512i second = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
  const __m512i low = _mm512_unpacklo_epi16(row, next), high = _mm512_unpackhi_epi16(row, next);
  _mm512_store_si512(left, _mm512_permutex2var_epi32(low, first, high));
  _mm512_store_si512(right, _mm512_permutex2var_epi32(low, second, high));
}

}  // namespace sluice::cpu::tiles
